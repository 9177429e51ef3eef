"""Mutation tests of what decides about drafts: each wrong decision must make a test fail.

    python tools/mutate.py [NAME ...]

Applies one mutation at a time to a copy of the package and runs the tests that belong to it. Says
which mutants survive; exit status 1 if any does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds of one mutant's tests, after which it counts as caught

CONTROLLER = "controller/controller.py"
PATH = "decoding/accepted_path.py"

WORLD = "tests/controller/test_controller.py::"
AUTO = "tests/controller/test_auto.py"
ARM = "tests/controller/test_arm.py"
RATES = "tests/controller/test_acceptance.py"
POLLING = "tests/controller/test_polling.py"
BUDGET = "tests/controller/test_loss_budget.py"
TIMES = "tests/controller/test_step_times.py"
NEXT_STATE = "tests/drafters/test_next_state.py"
LOOP_TESTS = "tests/decoding/test_speculate.py"
# One of the identity tests, which has most methods.
IDENTITY = "tests/test_identity.py::test_tiny_models[llama-f32-greedy]"


@dataclass(frozen=True)
class Mutation:
    """A wrong decision.

    Attributes:
        file: in the package.
        old, new: text that occurs once in it, and what replaces it.
        tests: each of them alone must fail.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = {
    "never draft": Mutation(
        CONTROLLER,
        "may_draft = limit > 0 and not self.times.plain_due",
        "may_draft = False",
        (
            WORLD + "test_faster_by_candidates_that_are_right",
            AUTO,
            IDENTITY,
        ),
    ),
    "draft before T1 is known": Mutation(
        CONTROLLER,
        "may_draft = limit > 0 and not self.times.plain_due",
        "may_draft = limit > 0",
        (WORLD + "test_sources_hear_of_rounds_in_which_they_are_not_asked",),
    ),
    "draft whatever its time is worth": Mutation(
        CONTROLLER,
        "        if self._retrying:\n            tokens_per_second, min",
        "        if True:\n            tokens_per_second, min",
        (WORLD + "test_what_did_not_pay_is_retried_now_and_then",),
    ),
    "never retry": Mutation(
        CONTROLLER,
        "return self._since_draft >= self._policy.retry_after",
        "return False",
        (WORLD + "test_what_did_not_pay_is_retried_now_and_then",),
    ),
    "ignore the loss budget": Mutation(
        CONTROLLER,
        "if seconds <= budget:",
        "if True:",
        (WORLD + "test_never_slower_by_candidates_that_are_wrong",),
    ),
    "ignore the loss budget with layers": Mutation(
        CONTROLLER,
        "budget=policy.arm_share * left,",
        "budget=inf,",
        (WORLD + "test_never_slower_by_layers_that_do_not_pay",),
    ),
    "risk the whole budget on one draft": Mutation(
        CONTROLLER,
        "max(self._budget.for_one_draft(t1, policy.draft_share), one)",
        "self._budget.left(t1)",
        (WORLD + "test_one_draft_risks_a_share_of_what_may_be_lost_until_something_is_won",),
    ),
    "no reserve for candidates": Mutation(
        CONTROLLER,
        " - policy.reserve * times.t1",
        " - 0.0 * times.t1",
        (WORLD + "test_a_reserve_is_for_candidates_alone",),
    ),
    "the arm of the least gain": Mutation(
        CONTROLLER,
        "if plan.gain > gain:",
        "if plan.gain < gain:",
        (WORLD + "test_layers_that_pay",),
    ),
    "arms before better candidates": Mutation(
        CONTROLLER,
        "if plan.gain > gain:",
        "if plan.gain > 0:",
        (WORLD + "test_lookups_are_preferred_where_they_are_right",),
    ),
    "no shadow drafts": Mutation(
        CONTROLLER,
        "if not affordable[0].tokens and self._shadow is None:",
        "if False:",
        (WORLD + "test_a_text_that_begins_badly",),
    ),
    "trees where only chains are verified": Mutation(
        CONTROLLER,
        "chain=self._chain,",
        "chain=False,",
        (WORLD + "test_without_trees_drafts_are_chains",),
    ),
    "forget skipped rounds": Mutation(
        CONTROLLER,
        "self._unheard.extend(rounds)",
        "pass",
        (WORLD + "test_what_was_slept_through_is_heard_of_at_last",),
    ),
    "skip rounds of sources that learn always": Mutation(
        CONTROLLER,
        "if back_off is not None and self._always_learning:",
        "if False:",
        (WORLD + "test_sources_that_learn_always_hear_of_every_round_once",),
    ),
    "watch although arms are to be asked": Mutation(
        CONTROLLER,
        "if self._only_lookups and not self._arms_due",
        "if self._only_lookups",
        (WORLD + "test_nobody_watches_while_layers_may_draft",),
    ),
    "count nothing as accepted": Mutation(
        CONTROLLER,
        "draft.probabilities[i], i in accepted)",
        "draft.probabilities[i], False)",
        (WORLD + "test_faster_by_candidates_that_are_right",),
    ),
    "search with time that was not saved": Mutation(
        CONTROLLER,
        "if expected is None or expected > for_search:",
        "if expected is None:",
        (WORLD + "test_a_search_spends_a_share_of_what_was_won",),
    ),
    "search without end": Mutation(
        CONTROLLER,
        "self._searched += spent",
        "pass",
        (WORLD + "test_a_search_spends_a_share_of_what_was_won",),
    ),
    "one loss budget for all texts": Mutation(
        CONTROLLER,
        "self._budget = LossBudget(lineup.policy.budget)",
        "self._budget = getattr(self, '_budget', None) or LossBudget(lineup.policy.budget)",
        (WORLD + "test_each_text_has_a_loss_budget_of_its_own",),
    ),
    "wrong sign of gain": Mutation(
        "controller/expected_gain.py",
        "gain = accepted - tokens_per_second",
        "gain = accepted + tokens_per_second",
        (
            WORLD + "test_lookups_are_preferred_where_they_are_right",
            ARM,
        ),
    ),
    "draft on whatever it costs": Mutation(
        "controller/expected_gain.py",
        "return min(1.0, tokens_per_second * seconds)",
        "return 0.0",
        (ARM,),
    ),
    "ignore acceptance": Mutation(
        "controller/acceptance.py",
        '        """Takes in whether a proposed token was drawn."""\n',
        '        """Takes in whether a proposed token was drawn."""\n        return\n',
        (
            WORLD + "test_what_did_not_pay_is_retried_now_and_then",
            RATES,
        ),
    ),
    "never forget other texts": Mutation(
        "controller/acceptance.py",
        "min(1.0, _FOREIGN_EXPECTED / sums[0]) if sums[0] else 1.0",
        "1.0",
        (RATES,),
    ),
    "never poll": Mutation(
        "controller/polling.py",
        "        if skips <= 0:\n            return",
        "        if skips <= 0:\n            self._skips = 1000\n            return",
        (
            WORLD + "test_faster_by_candidates_that_are_right",
            POLLING,
        ),
    ),
    "never back off": Mutation(
        "controller/polling.py",
        "return self._skips == 0",
        "return True",
        (
            WORLD + "test_looking_in_vain_is_bounded_by_time_not_by_rounds",
            POLLING,
        ),
    ),
    "back off although lookups could watch": Mutation(
        "controller/polling.py",
        "elif wake_at is not None:",
        "elif False:",
        (
            WORLD + "test_lookups_watch_and_wake_the_controller_up",
            POLLING,
        ),
    ),
    "sleep through wake-ups": Mutation(
        "controller/polling.py",
        "        if woken:",
        "        if False:",
        (
            WORLD + "test_lookups_watch_and_wake_the_controller_up",
            POLLING,
        ),
    ),
    "fruitless polls for ever": Mutation(
        "controller/polling.py",
        "self._fruitless >= _FRUITLESS * t1",
        "False",
        (
            WORLD + "test_looking_in_vain_is_bounded_by_time_not_by_rounds",
            POLLING,
        ),
    ),
    "losses are forgiven": Mutation(
        "controller/loss_budget.py",
        "self.won += tokens * t1 - seconds",
        "self.won += max(0.0, tokens * t1 - seconds)",
        (
            WORLD + "test_never_slower_by_candidates_that_are_wrong",
            BUDGET,
        ),
    ),
    "hold-ups are the draft's loss": Mutation(
        "controller/loss_budget.py",
        "return min(seconds, _HELD_UP * expected)",
        "return seconds",
        (WORLD + "test_a_step_that_was_held_up_is_not_the_drafts_loss",),
    ),
    "time is worth plain decoding's rate only": Mutation(
        "controller/loss_budget.py",
        "return max(1 / t1, recent)",
        "return 1 / t1",
        (BUDGET,),
    ),
    "V stays as measured": Mutation(
        "controller/step_times.py",
        "        self.multiples[n] = self._v(n)\n",
        "",
        (TIMES,),
    ),
    "T1 by the slowest steps": Mutation(
        "controller/step_times.py",
        "len(self._recent_t1) // 4",
        "-1",
        (TIMES,),
    ),
    "ask a head that does not pay": Mutation(
        "drafters/asking.py",
        "if self._wins >= 0:",
        "if True:",
        (NEXT_STATE,),
    ),
    "propose by a state that is out of date": Mutation(
        "drafters/next_state.py",
        "self._state is None or self._follows != self._length:",
        "self._state is None:",
        (NEXT_STATE,),
    ),
    "accept without checking": Mutation(
        PATH,
        "        if child is None:\n",
        "        if child is None and len(self.nodes) < len(self._draft.tokens):\n"
        "            child = len(self.nodes)\n"
        "        if child is None:\n",
        (
            LOOP_TESTS,
            IDENTITY,
        ),
    ),
    "keep the cells of rejected tokens": Mutation(
        PATH,
        "self._session.rollback(self._begin + kept)",
        "self._session.rollback(self._begin + len(self._draft.tokens))",
        (
            LOOP_TESTS,
            IDENTITY,
        ),
    ),
    "never accept": Mutation(
        PATH,
        "        if child is None:\n",
        "        if True:\n",
        (
            LOOP_TESTS,
            IDENTITY,
        ),
    ),
    "draft more than is wanted": Mutation(
        "decoding/speculate.py",
        "text.pending, most).first(most)",
        "text.pending, most)",
        (LOOP_TESTS,),
    ),
    "write on after the end": Mutation(
        "decoding/speculate.py",
        "ended = session.model.ends_text(token)",
        "ended = False",
        (LOOP_TESTS,),
    ),
    "an interrupt leaves tokens that nobody saw": Mutation(
        "decoding/plain.py",
        "if len(session) > begin:",
        "if False:",
        (LOOP_TESTS,),
    ),
}


def mutated(mutation: Mutation, folder: Path) -> None:
    """Makes a copy of the package with the mutation, and what running tests needs."""
    shutil.copytree(
        ROOT / "edge_conflayers",
        folder / "edge_conflayers",
        ignore=shutil.ignore_patterns("_native", "__pycache__"),
    )
    native = ROOT / "edge_conflayers" / "_native"
    if native.exists():  # else it is found where the package is installed
        (folder / "edge_conflayers" / "_native").symlink_to(native)
    for name in ("tests", "pyproject.toml", "models", "native", "tools"):
        (folder / name).symlink_to(ROOT / name)
    path = folder / "edge_conflayers" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.file} has this {text.count(mutation.old)} times, not once: {mutation.old!r}"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def survives(tests: str, folder: Path) -> bool:
    """Whether the tests pass in a copy of the package."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise SystemExit(f"{tests} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Runs these mutants, or all; returns the exit status."""
    unknown = set(names) - set(MUTATIONS)
    if unknown:
        raise SystemExit(f"there is no mutation {', '.join(sorted(unknown))}")
    survivors = []
    for name in names or MUTATIONS:
        mutation = MUTATIONS[name]
        for tests in mutation.tests:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                mutated(mutation, Path(folder))
                found = survives(tests, Path(folder))
            what = "SURVIVES" if found else "caught"
            print(f"{what:9} {name}: {tests} ({time.perf_counter() - began:.0f} s)", flush=True)
            if found:
                survivors.append(f"{name} ({tests})")
    print(f"{len(survivors)} survive{': ' if survivors else ''}{'; '.join(survivors)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
