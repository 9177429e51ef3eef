"""Short prompts of a few kinds, for whoever gives ``tune`` none."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_PROMPTS: Mapping[str, tuple[str, ...]] = {
    "code": (
        "Write a Python function that reads a CSV file of orders and returns the total amount for"
        " each customer as a dictionary.",
        "Complete this function:\n\n"
        "def longest_run(values: list[int]) -> int:\n"
        '    """Return the length of the longest run of equal values in a row."""\n',
        "Write a SQL query that lists the ten products with the highest revenue in 2023, given the"
        " tables products(id, name) and sales(product_id, amount, sold_on).",
    ),
    "summary": (
        "Summarize the following text in three sentences.\n\n"
        "The town of Halm has closed its old stone bridge to cars after inspectors found cracks in"
        " two of its arches. Buses now take a detour of eleven kilometres, and shopkeepers on the"
        " north bank say that they have lost a third of their customers. The council wants to"
        " repair the bridge rather than replace it, because it has stood since 1841 and draws"
        " visitors, but engineers warn that the repair would take two years and cost four million."
        " A group of residents has proposed a light footbridge next to it, which could be ready"
        " within months. The council will decide in March, after it has heard from the ministry"
        " that would pay for half of the work.",
        "Summarize the main points of this report.\n\n"
        "Over the last ten years the number of swifts that nest in the city has fallen by half."
        " The birds return to the same holes under roofs each spring, and when old houses are"
        " renovated, the holes disappear. Volunteers have counted nests in four districts since"
        " 2015. Where builders were made to add nesting bricks, the numbers have been stable;"
        " elsewhere they fell every year but one. The authors recommend that nesting bricks become"
        " part of the building rules, which would add about forty euros to the cost of a house,"
        " and that renovations stop between May and August.",
    ),
    "questions": (
        "Why does the moon always show the same side to the earth? Explain it to a curious child.",
        "A farmer has 84 eggs. He packs them into boxes of 6 and sells each box for 2.50 euros."
        " How much does he earn? Think step by step.",
        "What is the difference between weather and climate, and why do people confuse them?",
    ),
    "translation": (
        "Translate into German: The train to the coast leaves at half past seven. We should be at"
        " the station a little earlier, because there is only one ticket office and it is often"
        " crowded on Saturdays. If you like, we can have breakfast on the way.",
        "Translate into French: My grandmother kept bees behind the house. In summer she gave us"
        " bread with honey, and in winter she told us how the queen chooses a new home and how the"
        " others follow her.",
    ),
    "chat": (
        "I have a free weekend and it is going to rain. Give me some ideas for what to do at home"
        " with two children.",
        "Write a friendly e-mail to my landlord asking whether I may keep a small dog.",
        "Tell me a short story about a lighthouse keeper who finds a message in a bottle.",
    ),
}
