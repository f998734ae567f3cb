//! An agent's file: whatever it says, reading it ends with a definition or a problem, and a definition
//! means the same after it was stored. The reader and the catalogue of tools are compiled in from their own
//! files.

#![no_main]

use bailiwick_types::AgentDefinition;
use definition::parse;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/tools/src/catalogue.rs"]
mod catalogue;
#[allow(dead_code)]
#[path = "../../crates/agent/src/definition.rs"]
mod definition;

// By this name the reader asks for the catalogue.
extern crate self as bailiwick_tools;
use catalogue::is_known;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(agent) => {
            let stored = serde_json::to_string(&agent).expect("a definition can be stored");
            let read: AgentDefinition = serde_json::from_str(&stored).expect("what was stored can be read");
            assert_eq!(read, agent, "{stored}");
            agent.check(is_known).expect("what was accepted is accepted again");
            for tool in agent.tools.iter().chain(&agent.require_approval).chain(&agent.elevated) {
                assert!(is_known(tool), "{tool:?} was granted and does not exist");
            }
            // A tool that asks, or that leaves the sandbox, is one that was granted.
            assert!(agent.require_approval.iter().chain(&agent.elevated).all(|tool| agent.tools.contains(tool)));
            assert_eq!(agent.instructions, agent.instructions.trim());
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
