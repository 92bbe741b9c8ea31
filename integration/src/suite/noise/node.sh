# Node.js: a server under load, workers, child processes, files.
set -euo pipefail
cd "$(mktemp -d)"
cat > main.js <<'END'
const { Worker, isMainThread, parentPort } = require("worker_threads");
if (!isMainThread) {
  let sum = 0;
  for (let i = 0; i < 2e7; i++) sum += i % 7;
  parentPort.postMessage(sum);
} else main().catch((error) => { console.error(error); process.exit(1); });

async function main() {
  const [assert, http, fs, cluster] = ["assert", "http", "fs", "cluster"].map(require);
  const { execFile, fork, exec } = require("child_process");
  const wait = require("util").promisify;
  const server = http.createServer((request, response) => response.end("hello"));
  await new Promise((done) => server.listen(8003, "127.0.0.1", done));
  const get = () => new Promise((done, fail) =>
    http.get("http://127.0.0.1:8003/", (response) => response.resume().on("end", done)).on("error", fail));
  for (let i = 0; i < 50; i++) await Promise.all(Array.from({ length: 20 }, get));
  await Promise.all([1, 2].map(() => new Promise((done) => new Worker(__filename).on("message", done))));
  assert.equal((await wait(execFile)("echo", ["hi"])).stdout, "hi\n");
  assert.equal((await wait(exec)("echo $((1+1))")).stdout, "2\n");
  const watcher = fs.watch(".", () => {});
  for (let i = 0; i < 50; i++) await fs.promises.writeFile(`f${i}`, "x".repeat(i * 100));
  await fs.promises.mkdir("deep/er", { recursive: true, mode: 0o750 });
  await fs.promises.rename("f1", "deep/er/f1");
  await fs.promises.rm("deep", { recursive: true });
  watcher.close();
  const gzip = await wait(require("zlib").gzip)(Buffer.alloc(1e6));
  assert(gzip.length < 1e5);
  await wait(require("crypto").scrypt)("a", "b", 32);
  await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  await require("dns").promises.lookup("localhost");
  await require("dns").promises.lookup("no-such-host.invalid").catch(() => {});
  server.close();
}
END
node main.js
node --input-type=module -e 'import { cpus } from "os"; console.log(cpus().length)'
node --cpu-prof --cpu-prof-dir=profile -e 'for (let i = 0; i < 1e6; i++) Math.sqrt(i)'
