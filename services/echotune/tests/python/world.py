"""A generated world of listeners with tastes, as the tables of HetRec 2011, and the command that is driven over it."""

import json
import random
import subprocess
import sys

ARTISTS = 240
TASTES = 6


def write(folder, listeners):
    """Tables as those of HetRec 2011: each listener plays artists of one taste, and few others."""
    dealt = random.Random(7)
    folder.mkdir()
    names = [f"Artist {number}" for number in range(ARTISTS)]
    lines = {
        "artists.dat": ["id\tname\turl\tpictureURL"] + [f"{n}\t{name}\t\t" for n, name in enumerate(names, 1)],
        "tags.dat": ["tagID\ttagValue", "1\trock"],
        "user_taggedartists.dat": ["userID\tartistID\ttagID\tday\tmonth\tyear", "1\t2\t1\t1\t4\t2009"],
        "user_friends.dat": ["userID\tfriendID", "1\t7"],
    }
    plays = ["userID\tartistID\tweight"]
    for listener in range(1, listeners + 1):
        taste = listener % TASTES
        own = [artist for artist in range(ARTISTS) if artist % TASTES == taste]
        for artist in sorted(dealt.sample(own, 18) + dealt.sample(range(ARTISTS), 3)):
            plays.append(f"{listener}\t{artist + 1}\t{dealt.randint(1, 300)}")
    lines["user_artists.dat"] = list(dict.fromkeys(plays))
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")


class Echotune:
    """The command over one data folder."""

    def __init__(self, command, data, environment=None):
        self.words = [command, "--data", data]
        self.environment = environment

    def __call__(self, *words, refused=False):
        """What it printed; what it complained of, where it is to be refused."""
        command = [str(part) for part in [*self.words, *words]]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if (done.returncode != 0) != refused:
            sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stderr if refused else done.stdout

    def answer(self, *words):
        """What it printed for programs."""
        return json.loads(self(*words, "--output", "json"))
