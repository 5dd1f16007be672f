// Reads each request to its end, says what it understood, and answers with the target.
import { createServer } from "node:http";

const server = createServer({ keepAliveTimeout: 60_000 }, (request, answer) => {
  let length = 0;
  request.on("data", (piece) => { length += piece.length; });
  request.on("end", () => {
    process.stdout.write(`${request.method} ${request.url} 200 ${length}\n`);
    answer.end(request.url);
  });
});
server.on("clientError", (error, socket) => {
  // A connection that ends between requests, or in the middle of one, is no request.
  if (error.code !== "ECONNRESET" && error.code !== "HPE_INVALID_EOF_STATE") {
    process.stdout.write(`BAD ${error.code} 400 0\n`);
  }
  socket.destroy();
});
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
