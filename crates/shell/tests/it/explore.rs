use crate::*;
#[tokio::test(flavor="multi_thread", worker_threads=2)]
async fn explore() {
    let t = Tenant::new();
    std::os::unix::fs::symlink("/etc/passwd", t.file("leak")).unwrap();
    std::os::unix::fs::symlink("..", t.file("up")).unwrap();
    fs::write(t.top.path().join("outside.txt"), "SECRET").unwrap();
    fs::hard_link(t.top.path().join("outside.txt"), t.file("hard")).unwrap();
    for line in std::io::read_to_string(std::io::stdin()).unwrap().split("\n%%\n") {
        if line.trim().is_empty() { continue }
        let before = std::time::Instant::now();
        let o = t.shell.exec(line, Duration::from_secs(3), &mut |_,_|{}, CancellationToken::new()).await;
        let short = |b: &[u8]| { let s = String::from_utf8_lossy(b).into_owned(); if s.len() > 400 { format!("{}…[{}]", s.chars().take(200).collect::<String>(), s.len()) } else { s } };
        match o { Ok(o) => println!("=== {}\n[{:?} {:?}] out={:?}\n  err={:?} warn={:?}", line.chars().take(120).collect::<String>(), o.status, before.elapsed(), short(&o.stdout), short(&o.stderr), o.warnings),
          Err(e) => println!("=== {line}\nERR {e:?}") }
        let rss = fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS")||l.starts_with("VmHWM")).map(|l| l.replace(|c:char|c.is_whitespace(),"")).collect::<Vec<_>>().join(" ");
        println!("  {rss}");
    }
}
