//! Logins: how much of what the hash alone allows is left when somebody really signs in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::{Argon2, Params, Version};

use super::{ACCOUNT, PASSWORD, attempt, user};
use crate::load;
use crate::report::{Report, Target, rate};
use crate::server::Running;

/// As many people, each over one connection: more than there are threads, fewer than are let in at once.
const PEOPLE: usize = 8;
const TIME: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// As the server's defaults are (`auth.password`): KiB, passes.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;

pub(super) async fn measure(server: &Running, report: &mut Report) {
    for n in 0..PEOPLE {
        user(server, &format!("person-{n}")).await;
    }
    let (mut ours, mut bare) = (0.0f64, 0.0f64);
    for _ in 0..ROUNDS {
        let ask = |n: usize| attempt(&format!("person-{}@{ACCOUNT}", n % PEOPLE), PASSWORD);
        ours = ours.max(load::during(server.address, PEOPLE, TIME, ask).await.rate());
        bare = bare.max(tokio::task::spawn_blocking(hashes).await.unwrap());
    }
    let hashes = format!("bare hashes {bare:.1}/s");
    report.add("logins with a password", format!("{ours:.1}/s"), hashes, ours / bare, Target::AtLeast(0.8));
}

/// Hashes a second, on as many threads as the server has for them.
fn hashes() -> f64 {
    let threads = std::thread::available_parallelism().unwrap().get();
    let (begun, count) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let params = Params::new(MEMORY, PASSES, 1, None).unwrap();
                let argon2 = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
                while begun.elapsed() < TIME {
                    let mut output = [0u8; 32];
                    argon2.hash_password_into(PASSWORD.as_bytes(), b"salt of sixteen.", &mut output).unwrap();
                    std::hint::black_box(output);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    rate(count.load(Ordering::Relaxed), begun.elapsed())
}
