// A listener in a browser's own terms: prints each event of a stream, and nothing of its reconnects.
// node listen.cjs URL KEY
const { EventSource } = require("eventsource");

const [url, key] = process.argv.slice(2);
const source = new EventSource(url, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${key}` } }),
});
source.addEventListener("open", () => console.log("open"));
for (const type of ["task.submitted", "task.processing", "task.succeeded", "task.failed"]) {
    source.addEventListener(type, (event) => console.log(event.lastEventId, JSON.parse(event.data).type));
}
