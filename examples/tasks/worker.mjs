// Sorts words: a worker in Node, without packages, on the socket that it inherits.
// The status code is the outcome of the task, the body of a 200 its result.
import http from "node:http";

let busy = true; // this worker has to warm up first

const server = http.createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  if (busy) {
    busy = false;
    response.writeHead(503, { "Retry-After": "1" }).end(); // later, without an attempt spent
    return;
  }
  const args = JSON.parse(body);
  if (!Array.isArray(args.words)) {
    response.writeHead(422).end("there are no words"); // a dead letter: trying again is useless
    return;
  }
  console.log("task", request.headers["hozo-task"], "attempt", request.headers["hozo-attempt"]);
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(args.words.sort()));
});

server.listen({ fd: 3 }); // LISTEN_FDS
