"use strict";
// Every text of the data reaches the page as textContent, an attribute or a value; nothing is parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const counted = number => number.toLocaleString("en");
const many = (count, one, several = `${one}s`) => `${counted(count)} ${count === 1 ? one : several}`;
const byText = new Intl.Collator("en", {numeric: true}).compare;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const tell = sentence => { at("message").textContent = sentence; };

/* Names: kept by this browser, as pairs of what is named and its name, under a key of the page. */

function stored(key) {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(key)) || {}).filter(([, name]) => typeof name === "string");
  } catch {
    return []; // no store, or not ours: begin without names
  }
}

function store(key, names) {
  try {
    localStorage.setItem(key, JSON.stringify(Object.fromEntries(names)));
  } catch {
    tell("This browser keeps no names for this page: download them before you close it.");
  }
}

/* What the fields offer while one types. */
function offer(names) {
  const several = [...new Set(names.filter(Boolean))].sort(byText);
  at("names").replaceChildren(...several.map(value => make("option", {value})));
}

/* Tables: out, and in again. */

/* A spreadsheet computes what begins like a formula: written with a ' before it, read without (ssl_app/tables.py). */
const isNumber = text => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
const guarded = text => /^'*[=+\-@\t\r\n]/.test(text) && !isNumber(text) ? `'${text}` : text;
const plain = text => /^'+[=+\-@\t\r\n]/.test(text) ? text.slice(1) : text;

function quoted(text) {
  const cell = guarded(text);
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

function parseCsv(text) {
  const header = text.slice(0, text.search(/[\r\n]|$/));
  const separator = header.includes(";") && !header.includes(",") ? ";" : ","; // spreadsheets of some countries
  const rows = [];
  let row = [], field = "", inside = false;
  const endOfRow = () => {
    row.push(plain(field));
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
    field = "";
  };
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (inside) {
      if (letter !== '"') field += letter;
      else if (text[i + 1] === '"') { field += '"'; i += 1; }
      else inside = false;
    } else if (letter === '"' && field === "") inside = true;
    else if (letter === separator) { row.push(plain(field)); field = ""; }
    else if (letter === "\n") endOfRow();
    else if (letter !== "\r") field += letter;
  }
  if (field !== "" || row.length) endOfRow();
  return rows;
}

function save(text, file) {
  const address = URL.createObjectURL(new Blob([text], {type: "text/csv;charset=utf-8"}));
  make("a", {href: address, download: file}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/* For a file field: gives the text of the table to the page, and shows what the page says of it. */
function uploads(load) {
  return async event => {
    const [file] = event.target.files;
    if (!file) return;
    tell(load(await file.text(), file.name));
    event.target.value = ""; // the same file can be taken again
  };
}

function soon(work) {
  let waiting;
  return () => { clearTimeout(waiting); waiting = setTimeout(work, 150); };
}
