// Enqueues a task and waits for its result, in Node without packages.
import process from "node:process";

const door = "http://" + process.argv[2];

async function enqueue(kind, args, key, query = "") {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key }; // sent again, it is the same task
  const answer = await fetch(door + "/v1/tasks/" + kind + query, { method: "POST", headers, body: JSON.stringify(args) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.headers.get("Location");
}

async function wait(task) {
  for (;;) {
    const answer = await fetch(door + task + "?wait=30s");
    const status = await answer.json();
    if (!answer.ok) throw new Error(JSON.stringify(status));
    if (["done", "dead", "cancelled", "expired"].includes(status.state)) return status;
  }
}

const status = await wait(await enqueue("words.sort", { words: ["tenon", "mortise", "joint"] }, "example-1", "?ttl=1h"));
console.log(status.state, status.attempt, status.result.join(" "));
