# The standard library, a virtual environment, a package from a wheel.
set -euo pipefail
mkdir /opt/python && cd /opt/python
cat > main.py <<'END'
import asyncio, concurrent.futures, ctypes, hashlib, http.server, json, multiprocessing, os, shutil, socket
import sqlite3, ssl, subprocess, tempfile, threading, urllib.request, zipfile
from multiprocessing import shared_memory

def square(number):
    return number * number

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_):
        pass

async def echo():
    async def answer(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 8002)
    reader, writer = await asyncio.open_connection("127.0.0.1", 8002)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    server.close()

if __name__ == "__main__":
    with multiprocessing.Pool(3) as pool:
        assert pool.map(square, range(100))[-1] == 9801
    with multiprocessing.get_context("spawn").Pool(1, initializer=os.getpid) as pool:
        assert pool.apply(len, ("abc",)) == 3
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(square, range(10))) == 285
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.buf[:3] = b"abc"
    memory.close()
    memory.unlink()
    assert subprocess.run("echo $0 | tr a-z A-Z", shell=True, capture_output=True).stdout == b"/BIN/SH\n"
    assert subprocess.run(["sort"], input=b"b\na\n", stdout=subprocess.PIPE).stdout == b"a\nb\n"
    assert ctypes.CDLL(None).getpid() == os.getpid()
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)
    assert callback(1) == 2
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8001), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(200):
        assert urllib.request.urlopen("http://127.0.0.1:8001/").read() == b"hello"
    server.shutdown()
    asyncio.run(echo())
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(f"{folder}/z.zip", "w") as archive:
            archive.writestr("a/b.txt", "text")
        shutil.unpack_archive(f"{folder}/z.zip", f"{folder}/out")
        shutil.make_archive(f"{folder}/t", "gztar", f"{folder}/out")
        database = sqlite3.connect(f"{folder}/db")
        database.execute("create table t (x)")
        database.commit()
    context = ssl.create_default_context()
    assert hashlib.scrypt(b"x", salt=b"y", n=1024, r=8, p=1)
END
python3 main.py

python3 -m compileall -q -f /usr/lib/python3.11/json
mkdir -p source/noise && echo 'def main(): print("noise")' > source/noise/__init__.py
cat > source/pyproject.toml <<'END'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "noise"
version = "1"
[project.scripts]
noise = "noise:main"
END
PYTHONPATH=source python3 -c 'import noise; noise.main()'
python3 -m pip wheel --quiet --no-index --no-build-isolation --no-deps --wheel-dir wheels ./source
python3 -m pip install --quiet --no-index --break-system-packages --target target wheels/*.whl
PYTHONPATH=target python3 -c 'import noise; noise.main()'
python3 -m venv environment
environment/bin/pip install --quiet --no-index wheels/*.whl
environment/bin/python -c 'import noise; noise.main()'
