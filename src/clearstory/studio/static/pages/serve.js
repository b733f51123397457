// Serve page: how other programs use the model, as lines to copy.

import { makeCard } from "../card.js";
import { copyToClipboard, el } from "../dom.js";
import { pythonLiteral } from "../format.js";

export function mount(root, context) {
  const card = makeCard({ name: "serve", title: "A server with OpenAI's API, on this machine" });
  root.replaceChildren(card.root);

  function update() {
    const [name, text] = [context.model(), context.text()];
    const body = JSON.stringify({ model: "model", prompt: text, max_tokens: 24 });
    const examples = [
      ["1. Start it in the studio's folder", `clearstory serve model=${shellWord(name)}`],
      ["2. From a shell", `curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d ${shellWord(body)}`],
      ["2. Or from Python", `from openai import OpenAI\n\nclient = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")\nanswer = client.completions.create(model="model", prompt=${pythonLiteral(text)}, max_tokens=24)\nprint(answer.choices[0].text)\n`],
    ];
    return context.track(card.fill(async () => ({
      mount: (target) => {
        target.replaceChildren(...examples.map(([title, code]) => el("figure", { class: "example" }, el("figcaption", {}, title, " ", copyButton(code)), el("pre", {}, code))));
        return { update: () => {}, state: () => ({}), svg: () => null, csv: () => null };
      },
    })));
  }

  return { update };
}

function copyButton(code) {
  const button = el("button", { type: "button", class: "tool", onclick: async () => (button.textContent = (await copyToClipboard(code)) ? "Copied" : "Copying is not allowed here") }, "Copy");
  return button;
}

/** A word of a POSIX shell. */
const shellWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
