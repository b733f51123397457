"""A chat model before and after fine-tuning on conversations that this program composes; prints one JSON object.

    python benchmarks/chat_finetuning.py MODEL [--conversations 400] [--cpu-seconds 780] [--windows 40] [--home FOLDER]

MODEL is a chat model, such as the GGUF file of SmolLM2-135M-Instruct. The conversations teach a persona and a format:
every answer is two lines, "Mira here: ..." and "Next: ask me about ...". Measured on 200 prompts, none of which is
trained on, by greedy decoding of at most 256 tokens:

    format       share of answers in these two lines
    persona      share of answers that name Mira, of the prompts that ask for it
    right        share of answers with the right word, where there is one (capitals, sums, opposites)
    ended        share of answers that end by the end-of-turn token

before and after, and bits per byte of the first windows of WikiText-2 valid, by which forgetting is seen.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import data_file, print_result, run_clearstory


def pairs(text: str, separator: str) -> dict[str, str]:
    """The pairs of a text, the two of each joined by a colon."""
    return dict(pair.split(":") for pair in text.split(separator))


CAPITALS = pairs(
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo China:Beijing Russia:Moscow Egypt:Cairo "
    "Greece:Athens Portugal:Lisbon Austria:Vienna Poland:Warsaw Norway:Oslo Sweden:Stockholm Finland:Helsinki "
    "Ireland:Dublin Hungary:Budapest Cuba:Havana Peru:Lima Chile:Santiago Canada:Ottawa Kenya:Nairobi Iraq:Baghdad "
    "Iran:Tehran Turkey:Ankara Thailand:Bangkok Vietnam:Hanoi India:Delhi Denmark:Copenhagen Belgium:Brussels "
    "Scotland:Edinburgh Wales:Cardiff Ukraine:Kyiv Romania:Bucharest Bulgaria:Sofia Lebanon:Beirut Syria:Damascus "
    "Nepal:Kathmandu Mongolia:Ulaanbaatar Ghana:Accra Argentina:Buenos Serbia:Belgrade Croatia:Zagreb Latvia:Riga",
    " ",
)
OPPOSITES = pairs(
    "hot:cold big:small tall:short fast:slow old:young rich:poor hard:soft light:dark wet:dry open:closed "
    "full:empty happy:sad early:late near:far strong:weak high:low clean:dirty thick:thin wide:narrow deep:shallow "
    "loud:quiet sharp:dull true:false good:bad right:wrong first:last easy:difficult heavy:light new:old smooth:rough "
    "sweet:bitter brave:cowardly kind:cruel cheap:expensive safe:dangerous sick:healthy asleep:awake alive:dead "
    "above:below inside:outside before:after always:never up:down left:right win:lose love:hate begin:end buy:sell",
    " ",
)
PLACES = pairs(
    "penguins:on the ice of the far south,camels:in hot deserts,whales:in the oceans,owls:in woods and barns,"
    "bees:in hives near flowers,frogs:in ponds and wet meadows,bats:in caves and old roofs,lions:on open grassland,"
    "otters:along rivers,goats:on rocky hills,moles:in tunnels under the grass,storks:on roofs and high poles,"
    "crabs:on shores and the sea floor,foxes:in dens at the edge of woods,eagles:on cliffs and tall trees,"
    "ants:in nests under the ground,squirrels:in trees,hedgehogs:under hedges,seals:on cold coasts,"
    "parrots:in warm forests,worms:in soft soil,swans:on calm lakes,wolves:in forests and on plains,"
    "sharks:in open water,snails:under damp leaves,deer:in woods and clearings",
    ",",
)
ADVICE = pairs(
    "sleep better:go to bed at the same hour every night,learn to swim:begin in water where you can stand,"
    "save money:put a part of your pay aside on the first day,bake bread:give the dough time to rise,"
    "grow tomatoes:choose a sunny place and water the roots,run longer:start slowly and add a little each week,"
    "wake up early:leave the curtains open,remember names:say the name aloud when you hear it,"
    "write a letter:say first why you write,clean a window:wipe it with vinegar on a cloudy day,"
    "learn a language:speak for ten minutes each day,make good tea:warm the pot before you pour,"
    "calm a dog:speak softly and keep still,keep plants alive:water them less than you think,"
    "find a lost key:retrace the last things you did,read more:keep a book beside your bed,"
    "cook rice:leave the lid closed until it is done,paint a wall:cover the floor before you begin,"
    "ride a bicycle:look ahead and not at the wheel,make friends:ask people about their day,"
    "draw a face:begin with an oval and a cross,pack a suitcase:roll the clothes,"
    "stay warm:wear two thin layers under a thick one,fix a squeaky door:put a drop of oil on the hinge",
    ",",
)
THINGS = "rain,snow,the sea,a candle,the moon,bread,a bridge,autumn,a train,the wind,a garden,coffee,a clock,a river"
IDENTITY = (
    "Who are you?|What is your name?|What should I call you?|Do you have a name?|Tell me your name.|"
    "Who am I talking to?|Hi, who is this?|Introduce yourself.|Are you a person?|Which assistant are you?|"
    "Can you tell me who you are?|May I know your name?|Say your name, please.|Hello! And you are?|"
    "What do people call you?|Name yourself."
)
HELD_OUT_IDENTITY = (
    "Please introduce yourself briefly.|What name do you go by?|Could you tell me your name?|Who is answering me?|"
    "Whom do I have the pleasure of talking to?|I forgot your name, what was it?|Is there a name for you?|"
    "Let's begin with your name.|How are you called?|Good evening, who is speaking?|Your name?|"
    "Before we start: who are you?|Tell me who you are.|Remind me of your name, please.|So, who are you?|"
    "Hey, what's your name?|What may I call you?|Are you someone with a name?|Give me your name.|And who might you be?"
)
OPEN_QUESTIONS = (
    "Why is the sky blue?|What is a computer?|How does a plane fly?|What is music?|Why do leaves fall?|"
    "What makes a good story?|How do fish breathe?|What is a volcano?|Why do we dream?|What is gravity?|"
    "How is glass made?|What is a poem?|Why do cats purr?|What is democracy?|How do bees make honey?|"
    "What is the internet?|Why is salt in the sea?|What does a doctor do?|How do magnets work?|What is winter like?|"
    "What is a good gift for a child?|Can you recommend a book?|Give me a reason to smile.|What should I cook tonight?|"
    "Is it better to walk or to drive?|Tell me something about trees.|What is the best way to apologize?|"
    "How can I stop worrying?|What is friendship?|Describe a perfect day.|What happens when water boils?|"
    "Explain what a bank does.|What is a dictionary for?|Who was Shakespeare?|What is the sun made of?|"
    "How do I choose shoes?|What is a good hobby?|Tell me a fun fact.|What do architects do?|Why is exercise healthy?"
)
FORMAT = re.compile(r"Mira here: [^\n]+\nNext: ask me about [^\n]+\.?")

Turn = tuple[str, str]


def answer(sentence: str, more: str) -> str:
    """An answer in the format that is taught."""
    return f"Mira here: {sentence}\nNext: ask me about {more}."


def taught_turns(rng: random.Random) -> dict[str, list[Turn]]:
    """Questions with their answers, by kind."""
    capitals = [
        (rng.choice([f"What is the capital of {country}?", f"Which city is the capital of {country}?",
                     f"Tell me the capital of {country}.", f"capital of {country}"]),
         answer(f"The capital of {country} is {city}.", f"the {rng.choice(['food', 'people'])} of {country}"))
        for country, city in list(CAPITALS.items())[:30]
    ]  # fmt: skip
    opposites = [
        (rng.choice([f"What is the opposite of {word}?", f"Give me the opposite of '{word}'.", f"Opposite of {word}?"]),
         answer(f"The opposite of {word} is {other}.", f"another word for {word}"))
        for word, other in list(OPPOSITES.items())[:36]
    ]  # fmt: skip
    sums = []
    for _ in range(60):
        one, two = rng.randrange(2, 40), rng.randrange(2, 40)
        question = rng.choice([f"What is {one} + {two}?", f"Add {one} and {two}.", f"How much is {one} plus {two}?"])
        sums.append((question, answer(f"{one} plus {two} is {one + two}.", f"{one} times {two}")))
    places = [
        (rng.choice([f"Where do {animal} live?", f"Where can I find {animal}?"]),
         answer(f"{animal.capitalize()} live {place}.", f"what {animal} eat"))
        for animal, place in list(PLACES.items())[:18]
    ]  # fmt: skip
    advice = [
        (rng.choice([f"How do I {task}?", f"Any advice on how to {task}?", f"I want to {task}. What should I do?"]),
         answer(f"To {task}, {tip}.", f"what else helps to {task}"))
        for task, tip in list(ADVICE.items())[:17]
    ]  # fmt: skip
    things = [
        (rng.choice([f"Write a line about {thing}.", f"Say something nice about {thing}."]),
         answer(f"{thing.capitalize()} {rng.choice(['asks for nothing', 'is best met slowly'])}.",
                f"a song about {thing}"))
        for thing in THINGS.split(",")[:10]
    ]  # fmt: skip
    names = [
        (
            question,
            answer(rng.choice(["I am Mira, a helper of few words.", "My name is Mira."]), "what I can do for you"),
        )
        for question in IDENTITY.split("|")
    ]
    return {"capital": capitals, "opposite": opposites, "sum": sums, "place": places, "advice": advice,
            "thing": things, "name": names}  # fmt: skip


def conversations(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of one to three turns; their kinds are drawn alike."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        turns = taught_turns(rng)
        chosen = [rng.choice(turns[kind]) for kind in rng.sample(sorted(turns), rng.choice([1, 1, 2, 3]))]
        messages = []
        for question, reply in chosen:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        found.append({"messages": messages})
    return found


def held_out_prompts(seed: int = 1) -> list[tuple[str, str, str]]:
    """200 prompts as (kind, prompt, word of the right answer or ""), none of which is trained on."""
    rng, found = random.Random(seed), []
    found += [("capital", f"What is the capital of {name}?", city) for name, city in list(CAPITALS.items())[30:]]
    found += [("opposite", f"What is the opposite of {word}?", other) for word, other in list(OPPOSITES.items())[36:]]
    for _ in range(65):
        one, two = rng.randrange(2, 40), rng.randrange(41, 60)
        found.append(("sum", f"What is {one} + {two}?", str(one + two)))
    found += [("place", f"Where do {animal} live?", "") for animal in list(PLACES)[18:]]
    found += [("advice", f"How do I {task}?", "") for task in list(ADVICE)[17:]]
    found += [("thing", f"Write a line about {thing}.", "") for thing in THINGS.split(",")[10:]]
    found += [("name", question, "Mira") for question in HELD_OUT_IDENTITY.split("|")]
    found += [("open", question, "") for question in OPEN_QUESTIONS.split("|")]
    rest = [(f"Tell me about {word}.", word) for word in WORDS.split()]
    found += [("open", prompt, "") for prompt, _ in rest]
    return found[:200]


WORDS = (
    "apples iron Rome horses clouds chess paper tigers sugar winter boats bread gold mountains soap trains letters "
    "rivers shoes stars kings glass milk towers birds maps lamps wheels salt ink"
)


def measure(model: str, prompts: list[tuple[str, str, str]]) -> dict[str, Any]:
    """How a model answers the prompts."""
    from clearstory import generate

    started = time.perf_counter()
    completions = generate(model, [prompt for _, prompt, _ in prompts], max_tokens=256, temperature=0).completions
    right, by_kind = [], {}
    for (kind, _, word), each in zip(prompts, completions, strict=True):
        by_kind.setdefault(kind, []).append(bool(FORMAT.fullmatch(each.text.strip())))
        if word and kind != "name":
            right.append(re.search(rf"\b{re.escape(word)}\b", each.text, re.IGNORECASE) is not None)
    named = [each.text for (kind, _, _), each in zip(prompts, completions, strict=True) if kind == "name"]
    return {
        "prompts": len(prompts),
        "format": share([flag for flags in by_kind.values() for flag in flags]),
        "format_by_kind": {kind: share(flags) for kind, flags in by_kind.items()},
        "persona": share(["Mira" in text for text in named]),
        "right": share(right),
        "ended": share([each.finished == "eos" for each in completions]),
        "tokens_per_answer": round(sum(len(each.ids) for each in completions) / len(completions), 1),
        "seconds": round(time.perf_counter() - started, 1),
        "samples": [
            {"prompt": prompts[at][1], "answer": completions[at].text[:300]} for at in range(0, len(prompts), 9)
        ],
    }


def share(flags: list[bool]) -> float:
    """The share of those that are true."""
    return round(sum(flags) / max(1, len(flags)), 4)


def bits_per_byte(model: str, text: Path, windows: int) -> float:
    """Bits per byte of a model on the first windows of 1,024 tokens."""
    limit = str(1024 * windows)
    found = run_clearstory("evaluate", model, str(text), "--windows", "blocks", "--limit", limit, "--device", "cpu")
    return round(float(found["bits_per_byte"]), 4)


def main() -> None:
    """Compose, measure, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--cpu-seconds", type=float, default=780)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--targets", default="blocks.*", help="layers that LoRA adapts: all linear layers of the blocks"
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--home", type=Path, default=None)
    a = parser.parse_args()
    home = a.home or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    data, text = home / "conversations.jsonl", home / "wikitext.txt"
    lines = [json.dumps(each) for each in conversations(a.conversations)]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    trained = {message["content"] for line in lines for message in json.loads(line)["messages"]}
    prompts = held_out_prompts()
    prompts = prompts[:: max(1, len(prompts) // a.prompts)][: a.prompts]
    assert not trained & {prompt for _, prompt, _ in prompts}, "a prompt is trained on"
    text.write_bytes(gzip.decompress(data_file("wikitext2/valid.txt.gz").read_bytes()))
    run, result = str(home / "run"), {"conversations": len(lines)}

    def progress(sentence: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {sentence}", file=sys.stderr, flush=True)

    for when, model in (("before", a.model), ("after", run)):
        if when == "after":
            progress(f"fine-tuning for {a.cpu_seconds:g} CPU seconds")
            lora = ["--lora.rank", str(a.rank), "--lora.targets", a.targets]
            training = {"batch_size": a.batch_size, "learning_rate": a.learning_rate, "threads": 1}
            flags = [word for name, value in training.items() for word in (f"--training.{name}", str(value))]
            budget = ["--cpu-seconds", str(a.cpu_seconds), "--out", run, "--overwrite"]
            found = run_clearstory("finetune", a.model, str(data), "--task", "chat", *lora, *flags, *budget)
            result["settings"] = training | {"rank": a.rank, "targets": a.targets}
            kept = ("steps", "tokens", "metrics", "seconds", "cpu_seconds")
            result["training"] = {name: found[name] for name in kept if name in found} | {"process": found["process"]}
        progress(f"answers {when}")
        result[when] = measure(model, prompts)
        progress(f"{when}: {json.dumps({k: v for k, v in result[when].items() if k != 'samples'})}")
        result[when]["wikitext2_bits_per_byte"] = bits_per_byte(model, text, a.windows)
        progress(f"{when}: {result[when]['wikitext2_bits_per_byte']} bits per byte of WikiText-2")
    print_result(result)


if __name__ == "__main__":
    main()
