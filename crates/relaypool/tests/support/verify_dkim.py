"""Verifies every DKIM signature of messages with dkimpy.

Standard input: a JSON object with `records` (names and texts of DNS TXT records) and `messages` (paths).
Standard output: a JSON array with one object for each message: the results by algorithm, as it is and after its body
was changed.
"""

import json
import sys

import dkim

asked = json.load(sys.stdin)
records = {name.lower(): text.encode() for name, text in asked["records"]}


def dnsfunc(name, timeout=5):
    """The TXT record of a name, absolute as dkimpy asks for it."""
    return records.get(name.decode().rstrip(".").lower())


def results(message):
    """Whether each signature is good, by algorithm."""
    found = {}
    for index in range(sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(message).headers)):
        verifier = dkim.DKIM(message)
        try:
            good = verifier.verify(idx=index, dnsfunc=dnsfunc)
        except dkim.DKIMException:
            good = False
        found[verifier.signature_fields[b"a"].decode()] = good
    return found


answer = []
for path in asked["messages"]:
    with open(path, "rb") as file:
        message = file.read()
    answer.append({"whole": results(message), "changed": results(message + b"P.S.: one more line\r\n")})
json.dump(answer, sys.stdout)
