//! The scripted model that `conformance/eve` is written against; its README has the table.

/// Files that the checks write and show.
const NAMES: [&str; 11] =
    ["alpha", "gamma", "held", "denied", "typed", "ignored", "withdrawn", "twice", "foreign", "colleague", "command"];

/// One tool call, and then the words that end every such turn.
fn tool(user: &str, tools: &str) -> String {
    format!(
        "  - when: {{ user: \"{user}\" }}\n    repeat: last\n    steps:\n      - tools: [ {tools} ]\n      - text: \"the tool has answered\"\n        chunk_chars: 6\n"
    )
}

fn words(when: &str, text: &str, rest: &str) -> String {
    format!("  - when: {{ {when} }}\n    repeat: last\n    steps: [ {{ text: '{text}'{rest} }} ]\n")
}

/// The script, as YAML.
pub fn script() -> String {
    let bash = |command: &str| format!("{{ name: bash, input: {{ command: \"{command}\" }} }}");
    let mut text = String::from("chunk_chars: 5\nturns:\n");
    text.push_str(
        "  - when: { user: \"please fail\" }\n    repeat: last\n    steps: [ { fail: { status: 400, message: \"scripted refusal\" } } ]\n",
    );
    text.push_str(&tool("use-bash", &bash("echo hello-from-bash")));
    text.push_str(&tool("bash-exit-3", &bash("echo bad >&2; exit 3")));
    text.push_str(&tool("parallel", &format!("{}, {}", bash("echo one"), bash("echo two"))));
    for name in NAMES {
        let write = format!(
            "{{ name: write_file, input: {{ path: \"/workspace/{name}.txt\", content: \"{name} content\" }} }}"
        );
        text.push_str(&tool(&format!("write-file {name}"), &write));
        text.push_str(&tool(&format!("show-file {name}"), &bash(&format!("cat /workspace/{name}.txt"))));
    }
    text.push_str(&tool("read-attachment", &bash("cat /workspace/.eve/attachments/*/*")));
    text.push_str(&tool(
        "please ask",
        "{ name: ask_question, input: { question: \"Which colour?\", options: [ { label: Red, description: warm }, { label: Blue, description: cold } ] } }",
    ));
    text.push_str(&words("user: \"structured\"", "{\"colour\":\"red\",\"count\":3}", ""));
    text.push_str(&words("user: \"recall\", any_user: \"ctx-magenta\"", "recalled ctx-magenta", ""));
    text.push_str(&words("user: \"recall\", any_user: \"word-cobalt\"", "recalled word-cobalt", ""));
    text.push_str(&words("user: \"recall\"", "recalled nothing", ""));
    text.push_str(&words("user: \"ponder\"", "pondered at length", ", delay_ms: 2500, chunk_chars: 100"));
    text.push_str(&tool("slow-tool", &bash("sleep 2; echo late")));
    text.push_str(&words(
        "user: \"slow\"",
        "one two three four five six seven eight nine ten",
        ", delay_ms: 300, chunk_chars: 5",
    ));
    text.push_str("  - default: true\n    repeat: last\n    steps: [ { text: \"plain answer\" } ]\n");
    text
}
