"""A server of HTTP/1.1 that inherits its socket; it answers every GET with what it knows of itself.

It takes words: notify (sends READY=1), slow-ready (READY=1 once the file "ready" is there), silent
(accepts nothing), unhealthy (503 on every path), child (serves in a child process), stubborn (ignores
TERM), extends=N (asks for more time for N seconds, then sends READY=1), lingers=N (at TERM asks for more
time for N seconds, then ends), gives-up (asks for 0.2 s more, and no more), chatty=N (writes N lines), watchdog (sends WATCHDOG=1 until the file "stall" is there). Each
connection that it accepts adds a byte to the file "accepted-GENERATION".
"""
import json
import os
import select
import signal
import socket
import sys
import threading
import time

words = sys.argv[1:]
listener = socket.socket(fileno=3)


def notify(text):
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        notes.sendto(text.encode(), address)


def state():
    names = ("LISTEN_", "FERRICORN_", "NOTIFY_", "WATCHDOG_", "WEB_", "TEST_")
    status = open("/proc/self/status").read().split("\n")
    field = lambda name: next(line.split()[1] for line in status if line.startswith(name))
    descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    is_open = lambda number: os.path.exists(f"/proc/self/fd/{number}")
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "arguments": words,
        "variables": {k: v for k, v in os.environ.items() if k.startswith(names)},
        "descriptors": [number for number in descriptors if is_open(number)],
        "ignored": field("SigIgn"),
        "blocked": field("SigBlk"),
        "uid": os.getuid(),
    }


at_start = state()
generation = at_start["variables"]["FERRICORN_GENERATION"]
accepted = os.open(f"accepted-{generation}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
leaving = False
waker, woken = os.pipe()


def leave(number, frame):
    global leaving
    leaving = True
    os.write(woken, b"x")


signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in words else leave)
for word in words:
    if word.startswith("chatty="):
        for number in range(int(word[7:])):
            sys.stdout.write(f"line {number:08} " + "x" * 80 + "\n")
        sys.stdout.flush()
        notify("READY=1")


def take_time(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        notify("EXTEND_TIMEOUT_USEC=5000000")
        time.sleep(0.05)


held = []


def serve(connection):
    os.write(accepted, b"x")
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(4096)
            if not piece:
                return
            data += piece
        body = json.dumps(at_start).encode()
        if b" /grow " in data:
            held.append(b"x" * (96 << 20))
        status = "503 Busy" if "unhealthy" in words else "200 OK"
        if b" /slow " in data:
            open("in-slow", "w").close()
            while not os.path.exists("go-on"):
                time.sleep(0.005)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)


def seconds_of(name):
    found = [float(word[len(name):]) for word in words if word.startswith(name)]
    return found[0] if found else 0


def beat():
    while not os.path.exists("stall"):
        notify("WATCHDOG=1")
        time.sleep(0.02)


if "child" in words and os.fork() != 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()
if "gives-up" in words:
    notify("EXTEND_TIMEOUT_USEC=200000")
if seconds_of("extends="):
    take_time(seconds_of("extends="))
    notify("READY=1")
if "notify" in words:
    notify("STATUS=warming up")
    notify("READY=1\nSTATUS=serving")
if "watchdog" in words:
    threading.Thread(target=beat, daemon=True).start()
if "slow-ready" in words:
    while not os.path.exists("ready"):
        time.sleep(0.005)
    notify("READY=1")
if "silent" in words:
    while not leaving:
        select.select([waker], [], [])
    sys.exit()
listener.setblocking(False)
while not leaving:
    ready, _, _ = select.select([listener, waker], [], [])
    if listener in ready:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        serve(connection)
if seconds_of("lingers="):
    take_time(seconds_of("lingers="))
    open("lingered", "w").close()
