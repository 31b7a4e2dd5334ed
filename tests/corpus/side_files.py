"""Text beside a model: secrets, tags that construct, requirements that fetch, documents without end."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.corpus import COMMAND, Sample
from tests.corpus.containers import zipped

# Put together here, so that nobody's scanner finds a secret in this repository.
_SECRETS = {
    "AWS access key": "aws_access_key_id = AKIA" + "IOSFODNN7ABCDEFG",
    "AWS secret key": "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYzzzzzzzKEY",
    "GitHub token": "token: ghp_" + "x1Y2z3" * 6,
    "fine-grained GitHub token": "github_pat_" + "11ABCDEFG0" + "aBcDeFgHiJkL_" + "aB3" * 20,
    "GitLab token": "glpat-" + "aBcDeFgHiJ1234567890",
    "Hugging Face token": "HF_TOKEN=hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ12345678",
    "Slack token": "xoxb-" + "123456789012-1234567890123-" + "aBcDeFgHiJkLmNoPqRsTuVwX",
    "Google key": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "Google service account": json.dumps({"type": "service_account", "private_key": "-----BEGIN " + "PRIVATE KEY-----\nMIIEvQ\n-----END " + "PRIVATE KEY-----\n"}),
    "OpenAI key": "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9" + "aB3dE5gH7jK9mN1pQ3sT",
    "Anthropic key": "sk-ant-" + "api03-" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9-aB3dE5gH7jK9mN1pQ3sT5vW7yZ9AA",
    "Stripe key": "sk_live_" + "aB3dE5gH7jK9mN1pQ3sT5vW7",
    "npm token": "//packages.example.org/:_authToken=npm_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9aB3dE5gH7",
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmcC" + "aB3dE5gH7jK9" * 6,
    "private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH " + "PRIVATE KEY-----",
    "encrypted private key": "-----BEGIN ENCRYPTED " + "PRIVATE KEY-----\nMIIFHDBOBgkq\n-----END ENCRYPTED " + "PRIVATE KEY-----",
    "password in a URL": "postgresql://admin:" + "s3cr3t-Horse-9@db.example.org/models",
    "Azure connection string": "DefaultEndpointsProtocol=https;AccountName=models;AccountKey=" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9aB3dE5gH7jK9mN1pQ3sT5vW7yZ9aB3dE5gH7jK9mN1pQ3sT5vW7yZ9AA==" + ";EndpointSuffix=core.windows.net",
    "JWT": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "our own API key": "SLIPWAY_API_KEY=slw_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9aB3dE5gH7jK9mN1p",
}  # fmt: skip

_TAGS = {
    "apply": f"a: !!python/object/apply:os.system ['{COMMAND}']\n",
    "new": f"a: !!python/object/new:os.system ['{COMMAND}']\n",
    "name": "a: !!python/name:os.system\n",
    "module": "a: !!python/module:os\n",
    "object": "a: !!python/object:subprocess.Popen {}\n",
    "long form": f"a: !<tag:yaml.org,2002:python/object/apply:os.system> ['{COMMAND}']\n",
    "directive": f"%TAG !e! tag:yaml.org,2002:python/object/apply:\n---\na: !e!os.system ['{COMMAND}']\n",
    "escaped": f"a: !!python%2Fobject%2Fapply:os.system ['{COMMAND}']\n",
    "in a flow": f"{{a: [1, !!python/object/apply:os.system ['{COMMAND}']]}}\n",
    "as a key": f"? !!python/object/apply:os.system ['{COMMAND}']\n: 1\n",
    "in a second document": f"a: 1\n---\nb: !!python/object/apply:os.system ['{COMMAND}']\n",
    "behind a comment": f"# a comment\n\n\n- !!python/object/apply:os.system\n  - '{COMMAND}'\n",
    "unknown": "a: !Sub {b: 1}\n",
    "Ruby": "--- !ruby/object:Gem::Installer\ni: x\n",
    "Java": '!!javax.script.ScriptEngineManager [!!java.net.URLClassLoader [[!!java.net.URL ["http://127.0.0.1:1/"]]]]\n',
}  # fmt: skip

_REQUIREMENTS = {
    "index": "--index-url https://packages.example.org/simple\ntorch\n",
    "extra index": "--extra-index-url=https://packages.example.org/simple\ntorch\n",
    "find links": "-f https://packages.example.org/\ntorch\n",
    "trusted host": "--trusted-host packages.example.org\ntorch\n",
    "editable": "-e git+https://example.org/x.git#egg=x\n",
    "editable folder": "--editable ./src\n",
    "repository": "git+https://example.org/x.git@main#egg=x\n",
    "direct reference": "torch @ https://example.org/torch-2.13.0-py3-none-any.whl\n",
    "file": "file:///tmp/x.whl\n",
    "wheel": "https://example.org/x-1.0-py3-none-any.whl\n",
    "folder": "./wheels/x\n",
    "more files": "-r https://example.org/more.txt\n",
    "constraints": "-c ../../constraints.txt\n",
    "build options": 'torch --global-option="--no-user-cfg" --install-option="--x"\n',
    "pre-releases": "--pre\ntorch\n",
    "configuration settings": 'torch --config-settings="--build-option=--x"\n',
    "continued line": "torch \\\n  --index-url https://packages.example.org/simple\n",
    "environment variable": "torch @ https://${TOKEN}@example.org/torch.whl\n",
    "marker that calls": "torch; __import__('os').system('id')\n",
}  # fmt: skip


def samples() -> Iterator[Sample]:
    def sample(attack: str, name: str, text: str | bytes, filename: str, why: str, loader: str | None = None) -> Sample:
        content = text if isinstance(text, bytes) else text.encode()
        return Sample(
            name=f"{attack}: {name}", attack=attack, why=why, make=lambda: content, filename=filename, loader=loader
        )

    for name, text in _SECRETS.items():
        yield sample(
            "secret",
            name,
            f"# settings of the training run\n{text}\n",
            "config.txt",
            "a credential that must not be published with a model",
        )
    key = _SECRETS["AWS access key"]
    yield sample("secret", "in JSON", json.dumps({"training": {"s3": [key]}}), "config.json", "in a value")
    yield sample("secret", "in YAML", f"train:\n  key: {key}\n", "config.yaml", "in a value")
    yield sample(
        "secret", "in a card", f"# Model\n\n```\n{_SECRETS['Hugging Face token']}\n```\n", "README.md", "in a card"
    )
    yield sample(
        "secret",
        "in a package",
        zipped({"m/README.md": b"# Model\n", "m/.env": key.encode() + b"\n"}),
        "model.zip",
        "in a member",
    )
    yield sample("secret", "in another encoding", ("\ufeff" + key + "\n").encode("utf-16-le"), "config.txt", "UTF-16")
    yield sample(
        "secret", "behind a long line", "x" * 300_000 + " " + key + "\n", "config.txt", "beyond the first blocks"
    )
    for name, text in _TAGS.items():
        yield sample(
            "yaml",
            name,
            text,
            "config.yaml",
            "a tag that constructs",
            "yaml" if "os.system [" in text and name != "escaped" else None,
        )
    for name, text in _REQUIREMENTS.items():
        yield sample("requirements", name, text, "requirements.txt", "installs from where the uploader says")
    yield sample("text", "JSON with a name twice", '{"classes": 2, "classes": 3}', "config.json", "which is read?")
    yield sample("text", "JSON with NaN", '{"a": NaN, "b": Infinity}', "config.json", "no JSON")
    yield sample("text", "JSON with a tail", '{"a": 1}\x00\x01binary', "config.json", "more than one document")
    yield sample("text", "JSON cut", '{"a": [1, 2', "config.json", "half a document")
    yield sample(
        "text",
        "JSON that is jsonpickle",
        json.dumps({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [COMMAND]}]}),
        "config.json",
        "jsonpickle constructs what JSON names",
    )
    yield sample(
        "text",
        "JSON for hydra",
        json.dumps({"model": {"_target_": "os.system", "command": COMMAND}}),
        "config.json",
        "CVE-2025-23304: hydra calls what a configuration names",
    )
    yield sample(
        "text", "control characters", "a: 1\x1b]0;title\x07\n", "config.txt", "escapes for the reader's terminal"
    )
    yield sample("text", "text with NUL", "name: x\x00y\n", "config.txt", "binary by another name")
    yield sample("text", "half characters", b"name: \xff\xfe\xc3\n", "config.txt", "no UTF-8")
