//! An agent's file: whatever it says, reading it ends with a definition or a problem, and a definition
//! means the same after it was stored.

#![no_main]

use bailiwick_agent::definition::parse;
use bailiwick_types::AgentDefinition;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(agent) => {
            let stored = serde_json::to_string(&agent).expect("a definition can be stored");
            let read: AgentDefinition = serde_json::from_str(&stored).expect("what was stored can be read");
            assert_eq!(read, agent, "{stored}");
            agent.check(bailiwick_tools::is_known).expect("what was accepted is accepted again");
            for tool in agent.tools.iter().chain(&agent.require_approval).chain(&agent.elevated) {
                assert!(bailiwick_tools::is_known(tool), "{tool:?} was granted and does not exist");
            }
            // A tool that asks, or that leaves the sandbox, is one that was granted.
            assert!(agent.require_approval.iter().chain(&agent.elevated).all(|tool| agent.tools.contains(tool)));
            assert_eq!(agent.instructions, agent.instructions.trim());
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
