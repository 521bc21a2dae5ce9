// What every page does where scripts run: it stays up to date, tells ages, copies code, and takes dropped files.

const PAUSE_MS = 250; // so that a burst of events is one reading
const AGAIN_MS = 5000;
const AFTER_MS = 1000; // within which an attempt that is due was usually made
const SELDOM_MS = 60000; // at most, between two readings for an attempt that is overdue
const LONGEST_MS = 2 ** 31 - 1; // that a timer takes
const COPY = "Copy";

// Ages

function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  for (const [unit, size, above] of [["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172800]]) {
    if (seconds < above) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} days`;
}

// The server's clock, by which its pages are made, may be another than this one.
let ahead = 0;

function tellAges(root = document) {
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() + ahead - Date.parse(time.dateTime)) / 1000;
    time.textContent = seconds < 0 ? `in ${span(-seconds)}` : seconds < 5 ? "just now" : `${span(seconds)} ago`;
  }
}

// Up to date: whatever happens, the parts of the page that may have changed are read again.

function comparable(part) {
  const copy = part.cloneNode(true);
  for (const time of copy.querySelectorAll("time[data-ago]")) time.textContent = "";
  for (const details of copy.querySelectorAll("details")) details.removeAttribute("open");
  for (const button of copy.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.textContent = COPY; // which says for a moment that it was
  }
  for (const token of copy.querySelectorAll("input[name=form_token]")) token.remove();
  return copy.innerHTML;
}

let pressed = null; // what a pointer went down on, until it is up: a click is lost if that is replaced meanwhile
let isWaitedFor = false; // something was busy when the page was read, so that it has to be read again

function isBusy(part) {
  const isPlaying = [...part.querySelectorAll("video, audio")].some((each) => !each.paused);
  if (isPlaying || part.contains(pressed)) return true;
  return part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
}

function catchUp() {
  if (isWaitedFor) somethingHappened();
}

function letGo() {
  pressed = null;
  catchUp();
}

addEventListener("pointerdown", (event) => (pressed = event.button === 0 ? event.target : null), true);
for (const over of ["pointerup", "pointercancel"]) addEventListener(over, () => setTimeout(letGo), true); // after the click
for (const over of ["focusout", "ended"]) addEventListener(over, () => setTimeout(catchUp), true);

function replace(old, fresh) {
  if (comparable(old) === comparable(fresh)) return;
  if (isBusy(old)) {
    isWaitedFor = true;
    return;
  }
  const open = new Map([...old.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(focused);
  for (const details of fresh.querySelectorAll("details[id]")) {
    if (open.has(details.id)) details.open = open.get(details.id);
  }
  old.replaceChildren(...fresh.childNodes);
  if (focused) old.querySelectorAll("a, button, summary, [tabindex]")[place]?.focus({ preventScroll: true });
  offerCopies(old);
  tellAges(old);
}

let reading = new AbortController();

async function readAgain() {
  const response = await fetch(location.href, { headers: { accept: "text/html" }, signal: reading.signal });
  if (response.redirected && new URL(response.url).pathname === "/sign-in") {
    location.reload();
    return;
  }
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  isWaitedFor = false;
  const inPlace = new Set();
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const part = fresh.getElementById(old.id);
    if (part) replace(old, part);
    inPlace.add(old.id);
  }
  for (const part of fresh.querySelectorAll("main > [data-live][id]")) {
    // One that was not there before, such as the first follow-up: after what it follows there too.
    if (inPlace.has(part.id)) continue;
    const before = part.previousElementSibling?.id && document.getElementById(part.previousElementSibling.id);
    if (before) before.after(document.adoptNode(part));
  }
}

let isBehind = false;
let isReading = false;

// One reading at a time, and another one for what happens meanwhile: also where something happens all the time.
async function somethingHappened() {
  isBehind = true;
  if (isReading) return;
  isReading = true;
  while (isBehind) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    isBehind = false;
    if (source) await readAgain().catch(() => {}); // when the stream is open again, it is tried again
  }
  isReading = false;
  awaitAttempts();
}

// An attempt at a delivery is no event: the page is read again when it is due, until it was made. One that is overdue waits
// for something else, such as its endpoint's rate: the longer it does, the more rarely it is looked at.
function untilRead(time) {
  const wait_ms = Date.parse(time.dateTime) - Date.now() - ahead;
  return wait_ms > 0 ? wait_ms + AFTER_MS : Math.max(AFTER_MS, Math.min(-wait_ms / 4, SELDOM_MS));
}

let due = 0;
function awaitAttempts() {
  clearTimeout(due);
  const times = [...document.querySelectorAll("[data-due] time[data-ago]")];
  if (!times.length || !source) return;
  due = setTimeout(somethingHappened, Math.min(...times.map(untilRead), LONGEST_MS));
}

let source = null;

function say(text) {
  const line = document.getElementById("live");
  if (!line) return;
  line.hidden = !text;
  line.textContent = text;
}

function listen() {
  if (source || document.hidden) return;
  source = new EventSource("/live");
  source.onopen = () => {
    say("Live");
    document.documentElement.dataset.live = "on";
    somethingHappened(); // it may have, between the page's making and this
  };
  source.onerror = () => {
    say("Not live at the moment; trying again.");
    delete document.documentElement.dataset.live;
    if (source?.readyState === EventSource.CLOSED) {
      source = null;
      readAgain().catch(() => {}); // who was refused because of being signed out is led to the sign-in
      setTimeout(listen, AGAIN_MS);
    }
  };
  for (const type of JSON.parse(document.getElementById("live").dataset.types)) {
    source.addEventListener(type, somethingHappened);
  }
}

function rest() {
  source?.close();
  source = null;
  reading.abort();
  reading = new AbortController();
}

// What a form was sent from may be gone before its answer leads elsewhere; one that leads nowhere is listened to again.
function isLeaving(event) {
  if (event.defaultPrevented) return;
  rest();
  setTimeout(listen, AGAIN_MS);
}

if (document.querySelector("[data-live]") && document.getElementById("live")) {
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", listen);
  addEventListener("submit", isLeaving); // after the document's, that sends some by itself
  listen();
}

// Copying

function offerCopies(root = document) {
  if (!navigator.clipboard) return; // as in a page that came over http from another machine
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = COPY), 1500);
});

// Pictures and sounds: dropped or chosen. Pictures are shown before they are sent; a sound's name the field itself shows.

function takeDrops(root = document) {
  for (const drop of root.querySelectorAll(".drop")) takeDrop(drop);
}

function takeDrop(drop) {
  const input = drop.querySelector("input[type=file]");
  const list = drop.querySelector(".previews");
  const [kind] = input.accept.split("/"); // `image` or `audio`
  const show = () => {
    if (!list) return;
    for (const picture of list.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
    list.replaceChildren(
      ...[...input.files].map((file) => {
        const picture = Object.assign(document.createElement("img"), { src: URL.createObjectURL(file), alt: "" });
        const item = document.createElement("li");
        item.append(picture, file.name);
        return item;
      }),
    );
  };
  input.addEventListener("change", show);
  if (input.files.length) show();
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const files = new DataTransfer();
    for (const file of input.files) files.items.add(file);
    for (const file of event.dataTransfer.files) if (file.type.startsWith(`${kind}/`)) files.items.add(file);
    while (!input.multiple && files.items.length > 1) files.items.remove(0);
    input.files = files.files;
    show();
  });
}

// Forms are sent from here, so that a fault, or a look at the curl, loses no chosen file.

async function sendForm(form, submitter, entered) {
  // Not `form.action`: that is the button of this name.
  const response = await fetch(form.getAttribute("action"), { method: "POST", body: entered });
  if (response.redirected) {
    location.href = response.url;
    return;
  }
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const [part, command] = ["form", "command"].map((id) => fresh.getElementById(id));
  if (!part && !response.ok) {
    tellRefusal(form, fresh, response);
    return;
  }
  if (!part || !command) {
    // Another page altogether: a secret that is shown once.
    document.title = fresh.title;
    document.getElementById("main").replaceChildren(...fresh.getElementById("main").childNodes);
    offerCopies();
    document.getElementById("main").focus();
    return;
  }
  const chosen = [...form.querySelectorAll("input[type=file]")].map((input) => [input.id, input.files]);
  document.getElementById("form").replaceChildren(...part.childNodes);
  document.getElementById("command").replaceChildren(...command.childNodes);
  for (const [id, files] of chosen) document.getElementById(id).files = files;
  for (const hint of document.querySelectorAll("[data-files-lost]")) hint.remove();
  takeDrops();
  offerCopies();
  if (submitter.value === "curl") document.getElementById("command").scrollIntoView({ block: "nearest" });
  else document.querySelector("#form [autofocus]")?.focus(); // what is wrong first
}

// What was entered stays: it may be sent again.
function tellRefusal(form, fresh, response) {
  const told = fresh.querySelector("main [role=alert]") ?? Object.assign(document.createElement("p"), {
    className: "faults", role: "alert", textContent: `That did not work: ${response.status} ${response.statusText}`,
  });
  for (const former of document.querySelectorAll("#form > .faults")) former.remove();
  told.tabIndex = -1;
  form.before(told);
  told.focus();
}

// By the browser itself, which says by this call not which button was pressed.
function sendPlainly(form, submitter) {
  form.addEventListener("formdata", ({ formData }) => formData.set(submitter.name, submitter.value), { once: true });
  form.submit();
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-form]") || !event.submitter) return;
  event.preventDefault();
  const { submitter } = event;
  const entered = new FormData(form, submitter);
  submitter.disabled = true;
  sendForm(form, submitter, entered)
    .catch(() => sendPlainly(form, submitter))
    .finally(() => (submitter.disabled = false));
});

const made = document.querySelector("meta[name=made-at]");
if (made) ahead = Date.parse(made.content) - Date.now();
takeDrops();
offerCopies();
tellAges();
setInterval(tellAges, 10000);
