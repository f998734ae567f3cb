//! Sessions at work, from the inside: what is on the stream, in the store and on the record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod approvals;
mod budget;
mod fixture;
mod hostile;
mod machine;
mod model;
mod recovery;
mod refresh;
mod turns;

/// The answers of the scripted model that most tests use.
pub const SCRIPT: &str = r#"
turns:
  - when: { user: "write it" }
    repeat: last
    steps:
      - text: "I will write."
        tools: [ { name: write_file, input: { path: notes.txt, content: "hello" } } ]
      - text: "Done: {{last_tool_result}}"
  - when: { user: "read it" }
    repeat: last
    steps:
      - tools: [ { name: read_file, input: { path: notes.txt } } ]
      - text: "It says: {{last_tool_result}}"
  - when: { user: "both" }
    repeat: last
    steps:
      - tools:
          - { name: write_file, input: { path: one.txt, content: "1" } }
          - { name: plan, input: { items: [ { text: "think", status: done } ] } }
      - text: "Both done."
  - when: { user: "bad tools" }
    repeat: last
    steps:
      - tools:
          - { name: bash, input: { command: "ls" } }
          - { name: no_such_tool, input: {} }
          - { name: read_file, input: { path: notes.txt, extra: 1 } }
          - { name: read_file, input: { path: "../../etc/passwd" } }
      - text: "Then not."
  - when: { user: "leak" }
    repeat: last
    steps:
      - tools: [ { name: write_file, input: { path: s.txt, content: "very-secret-value" } } ]
      - tools: [ { name: read_file, input: { path: s.txt } } ]
      - text: "Read: {{last_tool_result}}"
  - when: { user: "ask me" }
    repeat: last
    steps:
      - tools: [ { name: ask_question, input: { question: "Which?", options: [ { label: Red }, { label: Blue } ] } } ]
      - text: "You said {{last_tool_result}}"
  - when: { user: "structured" }
    steps: [ { text: '{"colour":"red","count":3}' } ]
  - when: { user: "slow" }
    steps: [ { text: "one two three four five six seven eight nine ten", chunk_chars: 4, delay_ms: 150 } ]
  - when: { user: "ponder" }
    steps: [ { text: "pondered", delay_ms: 3000, chunk_chars: 100 } ]
  - when: { user: "fail" }
    steps: [ { fail: { status: 400, message: "scripted refusal" } } ]
  - default: true
    repeat: last
    steps: [ { text: "I heard: {{user}}" } ]
"#;
