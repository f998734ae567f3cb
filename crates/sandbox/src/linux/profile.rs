//! The list of system calls as a container engine takes it: Docker's JSON, from the names of `syscalls`.
//!
//! It is the outer of two fences, and holds before our first process is there. That one takes the filters of every
//! jail on top, which answer with the errors that a jail's programs know. Where the engine's form cannot say what
//! ours says (terminal tricks: "every request but these"), the inner fence says it alone.

use serde_json::{Value, json};

use super::syscalls::{COMMON, FORBIDDEN, FilterError, NAMESPACES, NATIVE, NATIVE_FORBIDDEN};

/// The profile.
///
/// # Errors
/// If this processor has no list.
pub(crate) fn profile() -> Result<Value, FilterError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "SCMP_ARCH_X86_64",
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => return Err(FilterError::Architecture),
    };
    let judged = judged();
    let is_judged = |name: &str| judged.iter().any(|(one, _)| *one == name);
    let names = |calls: [&[(&'static str, i64)]; 2]| -> Vec<&'static str> {
        calls.into_iter().flatten().map(|(name, _)| name.trim_start_matches("SYS_")).collect()
    };
    let allowed: Vec<_> = names([COMMON, NATIVE]).into_iter().filter(|name| !is_judged(name)).collect();
    let mut rules = vec![
        json!({ "names": allowed, "action": ALLOW }),
        json!({ "names": names([FORBIDDEN, NATIVE_FORBIDDEN]), "action": REFUSE, "errnoRet": libc::EPERM }),
    ];
    for (name, ways) in &judged {
        rules.extend(ways.iter().map(|arguments| json!({ "names": [name], "action": ALLOW, "args": arguments })));
    }
    Ok(json!({
        "defaultAction": REFUSE,
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [architecture],
        "syscalls": rules,
    }))
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const REFUSE: &str = "SCMP_ACT_ERRNO";

/// The calls whose arguments decide, and each way in which they are allowed.
fn judged() -> Vec<(&'static str, Vec<Vec<Value>>)> {
    let spaces: i32 = NAMESPACES.iter().fold(0, |all, flag| all | flag);
    let mut sockets = Vec::new();
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let kind = || masked(1, 0xf, kind);
        sockets.push(vec![equal(0, libc::AF_UNIX), kind()]);
        for family in [libc::AF_INET, libc::AF_INET6] {
            for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                sockets.push(vec![equal(0, family), kind(), equal(2, protocol)]);
            }
        }
    }
    // No device nodes; 0 is a plain file as well.
    let nodes = |argument| {
        let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
        kinds.map(|kind| vec![masked_unsigned(argument, libc::S_IFMT, kind)]).to_vec()
    };
    let mut all = vec![
        ("clone", vec![vec![masked(0, spaces, 0)]]),
        ("socket", sockets),
        ("socketpair", vec![vec![equal(0, libc::AF_UNIX)]]),
        // To ask, in both widths of -1, and to set the usual one.
        ("personality", [0, u64::from(u32::MAX), u64::MAX].map(|value| vec![argument(0, value, 0, "EQ")]).to_vec()),
        ("prlimit64", vec![vec![equal(0, 0)]]),
        ("mknodat", nodes(2)),
    ];
    if cfg!(target_arch = "x86_64") {
        all.push(("mknod", nodes(1)));
    }
    all
}

fn equal(index: u32, value: i32) -> Value {
    argument(index, u64::from(value.unsigned_abs()), 0, "EQ")
}

fn masked(index: u32, mask: i32, value: i32) -> Value {
    masked_unsigned(index, mask.cast_unsigned(), value.cast_unsigned())
}

fn masked_unsigned(index: u32, mask: u32, value: u32) -> Value {
    argument(index, u64::from(mask), u64::from(value), "MASKED_EQ")
}

fn argument(index: u32, value: u64, second: u64, comparison: &str) -> Value {
    json!({ "index": index, "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{comparison}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The rules that name a call, by action.
    fn rules<'a>(profile: &'a Value, name: &str) -> Vec<&'a Value> {
        let names = |rule: &&Value| rule["names"].as_array().unwrap().iter().any(|one| one == name);
        profile["syscalls"].as_array().unwrap().iter().filter(names).collect()
    }

    #[test]
    fn b04_the_engines_profile_says_what_the_jails_filters_say() {
        let profile = profile().unwrap();
        assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&json!(REFUSE), &json!(38)));
        for (name, _) in COMMON.iter().chain(NATIVE) {
            let rules = rules(&profile, name.trim_start_matches("SYS_"));
            assert!(!rules.is_empty() && rules.iter().all(|rule| rule["action"] == ALLOW), "{name}");
        }
        for (name, _) in FORBIDDEN.iter().chain(NATIVE_FORBIDDEN) {
            let rules = rules(&profile, name.trim_start_matches("SYS_"));
            assert!(rules.len() == 1 && rules[0]["action"] == REFUSE && rules[0]["errnoRet"] == 1, "{name}");
        }
        // What is in neither list is in no rule: a new call does not exist.
        assert!(rules(&profile, "clone3").is_empty());
    }

    #[test]
    fn b04_no_call_whose_arguments_decide_is_allowed_with_all_of_them() {
        let profile = profile().unwrap();
        for (name, ways) in judged() {
            let rules = rules(&profile, name);
            assert_eq!(rules.len(), ways.len(), "{name}");
            assert!(rules.iter().all(|rule| !rule["args"].as_array().unwrap().is_empty()), "{name}");
            // An engine takes two conditions on one argument for alternatives.
            for way in ways {
                let mut indices: Vec<u64> = way.iter().map(|one| one["index"].as_u64().unwrap()).collect();
                indices.dedup();
                assert_eq!(indices.len(), way.len(), "{name}");
            }
        }
        let clone = rules(&profile, "clone")[0]["args"][0].clone();
        assert_eq!((clone["value"].as_u64().unwrap() & 0x1000_0000, &clone["valueTwo"]), (0x1000_0000, &json!(0)));
    }
}
