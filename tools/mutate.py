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
LOOP = "decoding/accepted_path.py"
WORLD = "tests/controller/test_controller.py"
SPECULATE = "tests/decoding/test_speculate.py"
# Enough of the identity tests to have every method, in under a minute.
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
    tests: tuple[str, ...] = (WORLD,)


MUTATIONS = {
    "never draft": Mutation(
        CONTROLLER,
        "may_draft = limit > 0 and not self.times.plain_due",
        "may_draft = False",
        (WORLD, "tests/controller/test_auto.py", IDENTITY),
    ),
    "draft before T1 is known": Mutation(
        CONTROLLER, "may_draft = limit > 0 and not self.times.plain_due", "may_draft = limit > 0"
    ),
    "draft whatever its time is worth": Mutation(
        CONTROLLER,
        "        if self._retrying:\n            tokens_per_second, min",
        "        if True:\n            tokens_per_second, min",
    ),
    "never retry": Mutation(
        CONTROLLER, "return self._since_draft >= self._policy.retry_after", "return False"
    ),
    "ignore the loss budget": Mutation(CONTROLLER, "if seconds <= budget:", "if True:"),
    "ignore the loss budget with layers": Mutation(
        CONTROLLER, "budget=policy.arm_share * left,", "budget=inf,"
    ),
    "risk the whole budget on one draft": Mutation(
        CONTROLLER,
        "max(self._budget.for_one_draft(t1, policy.draft_share), one)",
        "self._budget.left(t1)",
    ),
    "no reserve for candidates": Mutation(
        CONTROLLER, " - policy.reserve * times.t1", " - 0.0 * times.t1"
    ),
    "the arm of the least gain": Mutation(
        CONTROLLER, "if plan.gain > gain:", "if plan.gain < gain:"
    ),
    "arms before better candidates": Mutation(
        CONTROLLER, "if plan.gain > gain:", "if plan.gain > 0:"
    ),
    "no shadow drafts": Mutation(
        CONTROLLER, "if not affordable[0].tokens and self._shadow is None:", "if False:"
    ),
    "trees where only chains are verified": Mutation(
        CONTROLLER, "chain=self._chain,", "chain=False,"
    ),
    "forget skipped rounds": Mutation(CONTROLLER, "self._unheard.extend(rounds)", "pass"),
    "skip rounds of sources that learn always": Mutation(
        CONTROLLER, "if back_off is not None and self._always_learning:", "if False:"
    ),
    "watch although arms are to be asked": Mutation(
        CONTROLLER, "if self._only_lookups and not self._arms_due", "if self._only_lookups"
    ),
    "count nothing as accepted": Mutation(
        CONTROLLER,
        "draft.probabilities[i], i in accepted)",
        "draft.probabilities[i], False)",
    ),
    "search with time that was not saved": Mutation(
        CONTROLLER, "if expected is None or expected > for_search:", "if expected is None:"
    ),
    "search without end": Mutation(CONTROLLER, "self._searched += spent", "pass"),
    "one loss budget for all texts": Mutation(
        CONTROLLER,
        "self._budget = LossBudget(lineup.policy.budget)",
        "self._budget = getattr(self, '_budget', None) or LossBudget(lineup.policy.budget)",
    ),
    "wrong sign of gain": Mutation(
        "controller/expected_gain.py",
        "gain = accepted - tokens_per_second",
        "gain = accepted + tokens_per_second",
        (WORLD, "tests/controller/test_arm.py"),
    ),
    "draft on whatever it costs": Mutation(
        "controller/expected_gain.py",
        "return min(1.0, tokens_per_second * seconds)",
        "return 0.0",
        ("tests/controller/test_arm.py",),
    ),
    "ignore acceptance": Mutation(
        "controller/acceptance.py",
        '        """Takes in whether a proposed token was drawn."""\n',
        '        """Takes in whether a proposed token was drawn."""\n        return\n',
        (WORLD, "tests/controller/test_acceptance.py"),
    ),
    "never forget other texts": Mutation(
        "controller/acceptance.py",
        "min(1.0, _FOREIGN_EXPECTED / sums[0]) if sums[0] else 1.0",
        "1.0",
        ("tests/controller/test_acceptance.py",),
    ),
    "never poll": Mutation(
        "controller/polling.py",
        "        if skips <= 0:\n            return",
        "        if skips <= 0:\n            self._skips = 1000\n            return",
        (WORLD, "tests/controller/test_polling.py"),
    ),
    "never back off": Mutation(
        "controller/polling.py",
        "return self._skips == 0",
        "return True",
        (WORLD, "tests/controller/test_polling.py"),
    ),
    "back off although lookups could watch": Mutation(
        "controller/polling.py",
        "elif wake_at is not None:",
        "elif False:",
        ("tests/controller/test_polling.py",),
    ),
    "sleep through wake-ups": Mutation(
        "controller/polling.py",
        "        if woken:",
        "        if False:",
        ("tests/controller/test_polling.py",),
    ),
    "fruitless polls for ever": Mutation(
        "controller/polling.py",
        "self._fruitless >= _FRUITLESS * t1",
        "False",
        (WORLD, "tests/controller/test_polling.py"),
    ),
    "losses are forgiven": Mutation(
        "controller/loss_budget.py",
        "self.won += tokens * t1 - seconds",
        "self.won += max(0.0, tokens * t1 - seconds)",
        (WORLD, "tests/controller/test_loss_budget.py"),
    ),
    "hold-ups are the draft's loss": Mutation(
        "controller/loss_budget.py", "return min(seconds, _HELD_UP * expected)", "return seconds"
    ),
    "time is worth plain decoding's rate only": Mutation(
        "controller/loss_budget.py",
        "return max(1 / t1, recent)",
        "return 1 / t1",
        ("tests/controller/test_loss_budget.py",),
    ),
    "V stays as measured": Mutation(
        "controller/step_times.py",
        "        self.multiples[n] = self._v(n)\n",
        "",
        ("tests/controller/test_step_times.py",),
    ),
    "T1 by the slowest steps": Mutation(
        "controller/step_times.py",
        "len(self._recent_t1) // 4",
        "-1",
        ("tests/controller/test_step_times.py",),
    ),
    "ask a head that does not pay": Mutation(
        "drafters/next_state.py",
        "if self._pays < 0:",
        "if False:",
        ("tests/drafters/test_next_state.py",),
    ),
    "propose by a state that is out of date": Mutation(
        "drafters/next_state.py",
        "self._state is None or self._follows != self._length:",
        "self._state is None:",
        ("tests/drafters/test_next_state.py",),
    ),
    "accept without checking": Mutation(
        LOOP,
        "        if child is None:\n",
        "        if child is None and len(self.nodes) < len(self._draft.tokens):\n"
        "            child = len(self.nodes)\n"
        "        if child is None:\n",
        (SPECULATE, IDENTITY),
    ),
    "keep the cells of rejected tokens": Mutation(
        LOOP,
        "self._session.rollback(self._begin + kept)",
        "self._session.rollback(self._begin + len(self._draft.tokens))",
        (SPECULATE, IDENTITY),
    ),
    "never accept": Mutation(
        LOOP, "        if child is None:\n", "        if True:\n", (SPECULATE, IDENTITY)
    ),
    "draft more than is wanted": Mutation(
        "decoding/speculate.py",
        "text.pending, most).first(most)",
        "text.pending, most)",
        (SPECULATE,),
    ),
    "write on after the end": Mutation(
        "decoding/speculate.py",
        "ended = session.model.ends_text(token)",
        "ended = False",
        (SPECULATE,),
    ),
    "an interrupt leaves tokens that nobody saw": Mutation(
        "decoding/plain.py", "if len(session) > begin:", "if False:", (SPECULATE,)
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
