"""Small files of known types, made on the spot: what the demo asks the model about."""

from __future__ import annotations

import gzip
import io
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np

PYTHON = '''"""Counts the words of a text."""
import sys
from collections import Counter

def count(path):
    with open(path, encoding="utf-8") as file:
        return Counter(word.lower() for line in file for word in line.split())

if __name__ == "__main__":
    for word, times in count(sys.argv[1]).most_common(10):
        print(f"{times:6d} {word}")
'''

C = """#include <stdio.h>
#include <stdlib.h>

struct node { int value; struct node *next; };

static struct node *push(struct node *list, int value) {
    struct node *node = malloc(sizeof *node);
    if (!node) abort();
    node->value = value;
    node->next = list;
    return node;
}

int main(void) {
    struct node *list = NULL;
    for (int i = 0; i < 10; i++) list = push(list, i * i);
    for (; list; list = list->next) printf("%d\\n", list->value);
    return 0;
}
"""

RUST = """use std::collections::HashMap;
use std::io::{self, BufRead};

fn main() -> io::Result<()> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in io::stdin().lock().lines() {
        for word in line?.split_whitespace() {
            *counts.entry(word.to_lowercase()).or_insert(0) += 1;
        }
    }
    let mut pairs: Vec<_> = counts.into_iter().collect();
    pairs.sort_by(|a, b| b.1.cmp(&a.1));
    for (word, count) in pairs.iter().take(10) {
        println!("{count:6} {word}");
    }
    Ok(())
}
"""

SHELL = """#!/bin/sh
set -eu
for file in "$@"; do
    if [ -f "$file" ]; then
        echo "$(wc -l < "$file") $file"
    else
        echo "no such file: $file" >&2
        exit 1
    fi
done | sort -rn | head -n 10
"""

HTML = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Tides</title><link rel="stylesheet" href="style.css"></head>
<body>
<h1>Tides</h1>
<p>High water at <b>06:12</b> and <b>18:37</b>.</p>
<table><tr><th>Place</th><th>Height</th></tr><tr><td>Harbour</td><td>3.1 m</td></tr></table>
</body>
</html>
"""

JSON = """{
  "name": "harbour",
  "position": {"latitude": 53.5436, "longitude": 9.9664},
  "tides": [
    {"time": "2024-05-01T06:12:00Z", "height": 3.1, "kind": "high"},
    {"time": "2024-05-01T12:40:00Z", "height": 0.4, "kind": "low"}
  ],
  "open": true
}
"""

SQL = """CREATE TABLE tides (
    id INTEGER PRIMARY KEY,
    place VARCHAR(80) NOT NULL,
    at TIMESTAMP NOT NULL,
    height NUMERIC(4, 2)
);
INSERT INTO tides (place, at, height) VALUES ('Harbour', '2024-05-01 06:12:00', 3.10);
SELECT place, MAX(height) FROM tides GROUP BY place HAVING COUNT(*) > 2 ORDER BY place;
"""


def write_samples(folder: Path) -> dict[Path, str]:
    """Writes one file of each kind into `folder`; returns the type of each, in magika's words."""
    samples = {
        "words.py": ("python", PYTHON.encode()),
        "list.c": ("c", C.encode()),
        "words.rs": ("rust", RUST.encode()),
        "longest.sh": ("shell", SHELL.encode()),
        "tides.html": ("html", HTML.encode()),
        "tides.json": ("json", JSON.encode()),
        "tides.sql": ("sql", SQL.encode()),
        "ramp.png": ("png", png(64, 64)),
        "tone.wav": ("wav", wav(seconds=0.1)),
        "words.zip": ("zip", zipped()),
        "words.tar": ("tar", tarred()),
        "words.gz": ("gzip", gzip.compress(PYTHON.encode() * 20)),
        "tides.db": ("sqlite", database(folder / "tides.db")),
        "array.npy": ("npy", npy()),
    }
    for name, (_, content) in samples.items():
        (folder / name).write_bytes(content)
    return {folder / name: label for name, (label, _) in samples.items()}


def png(width: int, height: int) -> bytes:
    """A grey ramp."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(width)) for y in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def wav(seconds: float, rate: int = 16000) -> bytes:
    """A tone of 440 Hz."""
    samples = np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 20000).astype("<i2").tobytes())
    return buffer.getvalue()


def zipped() -> bytes:
    """An archive of two sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("words.py", PYTHON)
        archive.writestr("list.c", C)
    return buffer.getvalue()


def tarred() -> bytes:
    """An archive of one source."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("words.py")
        entry.size = len(PYTHON)
        archive.addfile(entry, io.BytesIO(PYTHON.encode()))
    return buffer.getvalue()


def database(path: Path) -> bytes:
    """A table of three rows."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tides (place TEXT, height REAL)")
        connection.executemany(
            "INSERT INTO tides VALUES (?, ?)", [("Harbour", 3.1), ("Pier", 2.9), ("Lock", 3.4)]
        )
    connection.close()
    return path.read_bytes()


def npy() -> bytes:
    """A matrix as numpy saves it."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(256.0).reshape(16, 16))
    return buffer.getvalue()
