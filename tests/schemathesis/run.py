"""Starts a server, fills it, lets schemathesis call every operation of its /openapi.json, and looks what is
left of it.

    python run.py SERVER_PROGRAM

`cargo xtask schemathesis` calls this with the right interpreter. It ends with 0 only if no reply was a
server error or other than documented, every operation was answered well at least once, the server still
lives, its log is clean, and the tenant beside the one that was called is as it was.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

import requests

HERE = pathlib.Path(__file__).resolve().parent
ROOT_KEY = "root-key-of-schemathesis-0123456789abcdef"
SEED = "20261122"

# Replies that do not end by themselves. This list may only shrink.
ENDLESS = {"/api/v1/audit/stream": "server-sent events for as long as the reader stays"}

# Operations that are documented as not here: they are never answered well. This list may only shrink.
NEVER = {
    "GET /api/v1/ws": "it is a WebSocket",
    "POST /api/auth/passkeys/finish": "it takes what an authenticator made",
    "POST /api/auth/passkeys/login/finish": "it takes what an authenticator made",
    "POST /api/auth/passkeys/{passkey}/remove": "there is none without an authenticator",
    "GET /eve/v1/session/{session}/stubs": "tools are never stubbed",
    "GET /eve/v1/session/{session}/subagents/{call}/{child}/stream": "there are no remote agents",
}

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]

CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
data_dir = "data"
root_api_key_file = "root.key"
[model.default]
provider = "scripted"
script = "model.yaml"
# Nobody is called: nobody listens there.
[notifications]
hosts = { "hooks.slack.com" = "127.0.0.1:1", "discord.com" = "127.0.0.1:1", "discordapp.com" = "127.0.0.1:1", "api.telegram.org" = "127.0.0.1:1" }
"""


class Server:
    def __init__(self, program, home):
        self.home = home
        self.write("root.key", ROOT_KEY)
        self.write("model.yaml", (HERE / "model.yaml").read_text(encoding="utf-8"))
        self.write("bailiwick.toml", CONFIGURATION)
        self.log = open(home / "log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "serve", "-c", "bailiwick.toml"],
            cwd=home,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "BAILIWICK_LOG": "info"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.address = line.removeprefix("listening on ").strip()
                return
        sys.exit(f"the server did not start: {(home / 'log').read_text(encoding='utf-8')}")

    def write(self, name, text):
        path = self.home / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    def call(self, method, path, key, body=None, data=None, headers=None):
        headers = {"X-API-Key": key, **(headers or {})}
        reply = requests.request(method, self.address + path, json=body, data=data, headers=headers, timeout=30)
        if not reply.ok:
            sys.exit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply

    def done(self, *arguments, **named):
        return self.call(*arguments, **named).json()["result"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def fill(server, account, admin):
    """An account with all that there can be in one. Gives the admin's key and the things' ids."""
    made = server.done("POST", "/api/v1/admin/accounts", ROOT_KEY, {"account_id": account, "admin_user_id": admin})
    key = made["user_key"]
    users = f"/api/v1/admin/accounts/{account}/users"
    for user in ("carol", "dora", "emil"):
        server.done("POST", users, key, {"user_id": user, "role": "user"})
    keys = [server.done("POST", f"{users}/carol/keys", key, {"name": name})["id"] for name in ("one", "two")]
    for agent in ("default", "careful", "spare"):
        asks = ["write_file"] if agent == "careful" else []
        # By `scope`, the sandbox stays after the job.
        definition = {
            "tools": ["read_file", "write_file", "plan", "bash"],
            "require_approval": asks,
            "sandbox": {"scope": "agent"},
        }
        server.done("PUT", f"/api/v1/agents/{agent}", key, definition)
    for secret in ("token", "spare"):
        server.done("PUT", f"/api/v1/secrets/{secret}", key, {"value": "a-value-of-some-length", "note": secret})
        server.call("PUT", f"/api/v1/secrets/{secret}/grants/default/api.example", key)
    for target in ("target", "spare"):
        address = "https://discord.com/api/webhooks/1/a-token"
        body = {"name": target, "kind": "discord", "address": address, "events": ["question"]}
        server.done("POST", "/api/v1/notifications", key, body)
    spaces = [server.done("POST", "/api/v1/spaces", key, {"name": name})["id"] for name in ("one", "two")]
    for space in spaces:
        server.done("PUT", f"/api/v1/spaces/{space}/files/content?path=a/b.txt", key, data=b"content")
        server.done("PUT", f"/api/v1/spaces/{space}/grants", key, {"user": "carol", "level": "read"})
    server.done("PUT", f"/api/v1/spaces/{spaces[0]}/plan", key, {"items": [{"text": "think", "status": "pending"}]})

    def session(message, agent):
        headers = {"X-Bailiwick-Space": spaces[0], "X-Bailiwick-Agent": agent}
        return server.call("POST", "/eve/v1/session", key, {"message": message}, headers=headers).json()["sessionId"]

    sessions = [session("hello", "default"), session("hello", "default"), session("write", "careful")]
    approvals = wait(lambda: server.done("GET", "/api/v1/approvals", key))
    wait(lambda: all(server.done("GET", f"/api/v1/sessions/{s}", key)["state"] != "running" for s in sessions))
    jobs = f"/api/v1/spaces/{spaces[0]}/jobs"
    job = server.done("POST", jobs, key, {"command": "echo hello"})["id"]
    wait(lambda: server.done("GET", f"{jobs}/{job}", key)["state"] not in ("queued", "running"))
    sandbox = server.done("GET", "/api/v1/sandboxes", key)[0]["id"]
    return key, {
        "job": job,
        "sandbox": sandbox,
        "users": users,
        "keys": keys,
        "spaces": spaces,
        "sessions": sessions,
        "approval": approvals[0]["id"],
    }


def sign_in_and_out(server, users, key):
    """What asks for a password, a code or a login, which no schema gives: done once as it should be, before
    guesses lock this address."""
    account = users.rsplit("/", 2)[-2]
    server.done("POST", users, key, {"user_id": "flora", "role": "user", "password": "correct horse"})

    def login():
        body = {"username": "flora", "account": account, "password": "correct horse"}
        return server.call("POST", "/api/auth/login", "", body).json()

    one, two, three, four = login(), login(), login(), login()
    token = one["token"]
    secret = server.call("POST", "/api/auth/2fa/totp", token, {"password": "correct horse"}).json()["secret"]
    codes = server.call("POST", "/api/auth/2fa/totp/confirm", token, {"code": totp(secret)}).json()["recoveryCodes"]
    both = {"password": "correct horse", "code": codes[0]}
    codes = server.call("POST", "/api/auth/2fa/recovery-codes", token, both).json()["recoveryCodes"]
    server.call("POST", "/api/auth/2fa/totp/remove", token, {**both, "code": codes[0]})
    server.call("POST", "/api/auth/passkeys", token, {"password": "correct horse"})
    server.call("POST", "/api/auth/passkeys/login", "")
    server.call("POST", "/api/auth/logout", two["token"])
    server.call("DELETE", f"/api/v1/devices/{three['deviceId']}", token)
    server.call("DELETE", f"{users}/flora/devices/{four['deviceId']}", key)
    change = {"currentPassword": "correct horse", "newPassword": "battery staple"}
    server.call("POST", "/api/auth/password", token, change)


def let_a_program_in(server, key):
    """The whole way of a program that acts for a user, which takes a browser: done once as it should be."""
    callback = "http://127.0.0.1:8123/callback"
    metadata = {"redirect_uris": [callback], "token_endpoint_auth_method": "none"}
    client = server.call("POST", "/oauth/register", "", metadata).json()["client_id"]
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {"response_type": "code", "client_id": client, "redirect_uri": callback, "decision": "allow"}
    asked |= {"code_challenge": challenge, "code_challenge_method": "S256"}

    def application():
        form = {"X-API-Key": key}
        sent = server.address + "/oauth/authorize"
        back = requests.post(sent, data=asked, headers=form, allow_redirects=False, timeout=30).headers["location"]
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
        fields = {"grant_type": "authorization_code", "client_id": client, "code": code}
        fields |= {"redirect_uri": callback, "code_verifier": verifier}
        return code.split("_")[1], server.call("POST", "/oauth/token", "", data=fields).json()

    _, tokens = application()
    server.call("POST", "/oauth/revoke", "", data={"token": tokens["access_token"], "client_id": client})
    ended, _ = application()
    server.call("DELETE", f"/api/v1/applications/{ended}", key)
    kept = server.done("POST", "/api/v1/admin/clients", ROOT_KEY, metadata)["client_id"]
    server.call("DELETE", f"/api/v1/admin/clients/{kept}", ROOT_KEY)


def totp(secret):
    """The present code of an authenticator app (RFC 6238)."""
    counter = int(time.time() // 30).to_bytes(8, "big")
    digest = hmac.new(base64.b32decode(secret), counter, "sha1").digest()
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at:at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06d}"


def wait(look):
    for _ in range(600):
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit("what was waited for did not come")


def picture(server, key, things):
    """All that a tenant can see of its own, but for what the looking itself changes."""
    paths = ["/api/v1/agents", "/api/v1/spaces", "/api/v1/sessions", "/api/v1/approvals", "/api/v1/policies"]
    paths += ["/api/v1/secrets", "/api/v1/notifications"]
    paths += [things["users"], things["users"] + "/carol"]
    for space in things["spaces"]:
        paths += [f"/api/v1/spaces/{space}/{what}" for what in ("files?recursive=true", "grants", "plan", "sessions")]
    seen = {path: server.done("GET", path, key) for path in paths}
    keys = server.done("GET", f"{things['users']}/carol/keys", key)
    seen["keys"] = [one["id"] for one in keys]
    for space in things["spaces"]:
        seen[f"content of {space}"] = server.call("GET", f"/api/v1/spaces/{space}/files/content?path=a/b.txt", key).text
    job = f"/api/v1/spaces/{things['spaces'][0]}/jobs/{things['job']}"
    seen["job"] = server.done("GET", job, key)
    seen["what it said"] = server.call("GET", f"{job}/log", key).text
    for session in things["sessions"]:
        seen[session] = server.call("GET", f"/eve/v1/session/{session}/stream?follow=false", key).text
    return seen


def steer(things, protected):
    """What hooks.py needs to know."""
    user = "/api/v1/admin/accounts/{account}/users/{user}"
    real = {
        "account": "acme",
        "user": "carol",
        "key": things["keys"][0],
        "agent": "default",
        "space": things["spaces"][0],
        "session": things["sessions"][0],
        "job": things["job"],
        "sandbox": things["sandbox"],
        "approval": things["approval"],
        "path": "a/b.txt",
        "secret": "token",
        "notification": "target",
        "hosts": "api.example",
    }
    spare = {
        "DELETE /api/v1/admin/accounts/{account}": {"account": "spare"},
        f"DELETE {user}": {"user": "dora"},
        f"PUT {user}/role": {"user": "emil"},
        f"POST {user}/key": {"user": "emil"},
        f"DELETE {user}/keys/{{key}}": {"key": things["keys"][1]},
        "DELETE /api/v1/spaces/{space}": {"space": things["spaces"][1]},
        "POST /eve/v1/session/{session}/reset": {"session": things["sessions"][1]},
        "DELETE /api/v1/agents/{agent}": {"agent": "spare"},
        "DELETE /api/v1/secrets/{secret}": {"secret": "spare"},
        "DELETE /api/v1/notifications/{notification}": {"notification": "spare"},
    }
    return {"real": real, "spare": spare, "protected": [*protected, *real.values()]}


def schemathesis(server, key, examples):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json"]
    command += ["-H", f"X-API-Key: {key}", "--seed", SEED, "-n", str(examples)]
    # One worker: with more, the same seed makes other cases.
    command += ["--workers", "1", "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)]
    command += ["--generation-database", "none", "--generation-with-security-parameters", "false"]
    command += ["--request-timeout", "30", "--suppress-health-check", "all", "--warnings", "off", "--no-color"]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BAILIWICK_THINGS": str(server.home / "things.json"),
    }
    return subprocess.run(command, cwd=server.home, env=environment, check=False).returncode


def counted(server):
    """How often each operation was answered with which status, as the server has counted."""
    text = server.call("GET", "/metrics", ROOT_KEY).text
    found = {}
    for route, method, status in re.findall(r'requests_total\{route="([^"]*)",method="([^"]*)",status="(\d+)"', text):
        found.setdefault(f"{method} {route}", set()).add(status)
    return found


def main():
    problems = []
    with tempfile.TemporaryDirectory(prefix="bailiwick-schemathesis-") as home:
        server = Server(sys.argv[1], pathlib.Path(home))
        try:
            # Before there is any other account: then it is closed.
            server.call("POST", "/api/auth/setup", ROOT_KEY, {"username": "first", "password": "correct horse"})
            alice, things = fill(server, "acme", "alice")
            bob, others = fill(server, "globex", "bob")
            spare = {"account_id": "spare", "admin_user_id": "sam"}
            server.done("POST", "/api/v1/admin/accounts", ROOT_KEY, spare)
            sign_in_and_out(server, things["users"], alice)
            let_a_program_in(server, alice)
            server.write("things.json", json.dumps(steer(things, ["acme", "alice", "globex", "bob"])))
            before = picture(server, bob, others)
            for who, key, examples in (("an admin", alice, 15), ("the operator", ROOT_KEY, 8)):
                print(f"schemathesis as {who}", flush=True)
                if schemathesis(server, key, examples) != 0:
                    problems.append(f"schemathesis found something as {who}")
            if server.process.poll() is not None:
                problems.append(f"the server has ended with {server.process.returncode}")
            else:
                server.call("GET", "/ready", ROOT_KEY)
                problems += look(server, alice, bob, others, before)
                code = server.stop()
                if code != 0:
                    problems.append(f"the server stopped with {code}")
        finally:
            if server.process.poll() is None:
                server.process.kill()
            server.log.close()
        log = (server.home / "log").read_text(encoding="utf-8", errors="replace")
        for line in log.splitlines():
            if re.search(r"panick|a request failed|\b500\b|ERROR", line):
                problems.append(f"the server's log says: {line[:400]}")
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


def look(server, alice, bob, others, before):
    problems = []
    # The run must not have worn itself out on the way: whoever called may still call.
    server.done("GET", "/api/v1/spaces", alice)
    after = picture(server, bob, others)
    for path in before:
        if before[path] != after[path]:
            problems.append(f"the other tenant's {path} was {before[path]} and is {after[path]}")
    for event in server.done("GET", "/api/v1/audit?limit=1000", bob):
        if event["user"] not in ("bob", None) and event["user"] not in ("carol", "dora", "emil"):
            problems.append(f"the other tenant's log has an event of {event['actor']}: {event}")
    for account in (alice, bob):
        verified = server.done("GET", "/api/v1/audit/verify", account)
        if verified["ok"] is not True:
            problems.append(f"a log does not verify: {verified}")
    document = server.call("GET", "/openapi.json", alice).json()
    statuses = counted(server)
    for path, operations in document["paths"].items():
        for method in operations:
            operation = f"{method.upper()} {path}"
            found = statuses.get(operation, set())
            wrong = sorted(status for status in found if status.startswith("5"))
            if wrong:
                problems.append(f"{operation} was answered with {', '.join(wrong)}")
            if path in ENDLESS:
                continue
            well = any(status.startswith("2") for status in found)
            if well == (operation in NEVER):
                problems.append(f"{operation} was answered well: {well}, with {sorted(found)}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
