// Visits the page as a person does, and prints what is seen as JSON.
// node page_visit.mjs FOLDER URL STEPS: FOLDER holds the page, STEPS is a name below.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { documentOf, until } from "./page_document.mjs";

const [, , folder, url, steps] = process.argv;
const script = readFileSync(`${folder}/page.js`, "utf8").replace("/page/reading.js", "./reading.mjs");
writeFileSync(`${folder}/page.mjs`, script);
writeFileSync(`${folder}/reading.mjs`, readFileSync(`${folder}/reading.js`));

const document = documentOf(readFileSync(`${folder}/index.html`, "utf8"));
const at = (id) => document.getElementById(id);
const asked = [];
const ask = globalThis.fetch;
globalThis.fetch = (path, options = {}) => {
  if (!path.startsWith("/")) throw new Error(`asks elsewhere: ${path}`);
  asked.push({ path, key: options.headers?.Authorization ?? null, body: options.body ?? null });
  return ask(url + path, options);
};
Object.assign(globalThis, { document, innerWidth: 1000 });
await import(pathToFileURL(`${folder}/page.mjs`));

const turns = () => at("log").children;
const isIdle = () => !at("send").disabled && at("stop").disabled;
const question = (text) => {
  at("question").value = text;
  at("question").send("keydown", { key: "Enter", shiftKey: false, isComposing: false });
};
const button = (turn, text) => turn.all("button").find((each) => each.textContent === text);
const answered = async (count) => {
  await until(() => turns().length === count && isIdle(), `${count} turns`);
  return turns().at(-1);
};
const divs = (turn) => turn.all("div").filter((each) => each.attributes.class === "text");

const VISITS = {
  async chat() {
    at("temperature").value = "0";
    at("thinking").checked = true;
    await until(() => at("metrics").children.length, "metrics");
    question("What is 17 + 25?");
    const turn = await answered(2);
    const [reasoning, content] = divs(turn).map((each) => each.textContent);
    const span = turn.all("span")[0];
    at("log").send("mouseover", { target: span, clientX: 10, clientY: 20 });
    const tip = { text: at("tip").textContent, hidden: at("tip").hidden, left: at("tip").style.left };
    const table = turn.all("details").at(-1);
    table.send("toggle");
    question("And 1 + 1?");
    await answered(4);
    return {
      reasoning, content, tip, rows: table.all("tr").length - 1, model: at("model").textContent,
      said: at("said").textContent, metrics: at("metrics").textContent,
      bodies: asked.filter((each) => each.body).map((each) => JSON.parse(each.body)),
    };
  },

  async edit() {
    question("first");
    await answered(2);
    question("second");
    await answered(4);
    button(turns()[2], "Edit").send("click");
    const edited = { text: at("question").value, turns: turns().length };
    question("third");
    await answered(4);
    const body = JSON.parse(asked.filter((each) => each.body).at(-1).body);
    at("clear").send("click");
    return { edited, users: body.messages.filter((m) => m.role === "user"), left: turns().length };
  },

  async stop() {
    question("long");
    await until(() => turns()[1]?.all("span").length, "text");
    at("stop").send("click");
    const turn = await answered(2);
    return { said: at("said").textContent, shown: turn.all("p").at(0).textContent };
  },

  async key() {
    await until(() => at("key-dialog").isOpen, "a question for the key");
    const why = at("key-why").textContent;
    at("key").value = "wrong";
    at("key-form").send("submit");
    await until(() => at("key-dialog").isOpen && at("key-why").textContent !== why, "another");
    const second = at("key-why").textContent;
    at("key").value = "right";
    at("key-form").send("submit");
    await until(() => at("model").textContent.includes("up to"), "the model's name");
    question("hello");
    await answered(2);
    return { why, second, kept: at("key").value, keys: [...new Set(asked.map((each) => each.key))] };
  },

  async leave() {
    await until(() => at("key-dialog").isOpen, "a question for the key");
    at("key-cancel").send("click");
    await new Promise((resolve) => setTimeout(resolve, 4500));
    const again = at("key-dialog").isOpen;
    question("hello");
    await until(() => at("key-dialog").isOpen, "the question again");
    at("key-dialog").send("cancel");
    const turn = await answered(2);
    return { again, shown: turn.all("p").at(0).textContent };
  },

  async tools() {
    at("tools").value = "[{";
    question("weather?");
    const wrong = (await answered(2)).all("p").at(0).textContent;
    at("tools").value = '[{"type": "function", "function": {"name": "f"}}]';
    question("weather?");
    const turn = await answered(4);
    const call = turn.all("pre")[0].textContent;
    const [input] = turn.all("textarea");
    input.value = "<b>sunny</b>";
    button(turn, "Send the results").send("click");
    const last = await answered(6);
    const body = JSON.parse(asked.filter((each) => each.body).at(-1).body);
    return { wrong, call, label: turn.all("label")[0].textContent, body, shown: divs(last)[0].textContent };
  },
};

const seen = await VISITS[steps]();
console.log(JSON.stringify(seen));
process.exit(0);
