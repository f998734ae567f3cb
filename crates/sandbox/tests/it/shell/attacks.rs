//! B04 and B05: what a command may try in the virtual shell: the lists of `bailiwick_sandbox::attack`.

use bailiwick_sandbox::attack::{self, Group, Inside, Kind, Places, Said, Verdict};
use bailiwick_sandbox::linux::Limits;
use bailiwick_shell::Status;

use super::{Tenant, stderr, stdout};

impl Inside for Tenant {
    async fn run(&self, script: &str) -> Result<Said, String> {
        let output = Self::run_for(self, script, std::time::Duration::from_secs(5)).await;
        Ok(Said {
            stdout: stdout(&output),
            stderr: stderr(&output),
            well: output.status == Status::Exited(0) && output.warnings.is_empty(),
        })
    }
}

#[tokio::test]
async fn b04_b05_attacks_on_the_virtual_shell_find_nothing_where_the_hosts_shell_does() {
    let (tenant, neighbour) = (Tenant::new(), Tenant::new());
    let own = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let places = Places {
        launcher: None,
        limits: Limits::default(),
        workspace: tenant.top.path().join("space"),
        other: neighbour.top.path().join("space"),
        own: own.path().to_owned(),
        port,
        server_port: port,
        abstract_name: String::new(),
        probe: env!("CARGO_BIN_EXE_bailiwick-probe").into(),
    };
    attack::prepare(&places).unwrap();
    let findings = attack::run(Kind::Virtual, &Group::INSIDE, &places, &tenant, &neighbour).await.unwrap();
    let wrong: Vec<_> = findings.iter().filter(|one| one.verdict != Verdict::Held).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(findings.len() > 30);
    // The control of the lists: with what is looked for in the workspace itself, they are red.
    std::fs::remove_file(tenant.file("link-to-passwd")).unwrap();
    std::fs::write(tenant.file("link-to-passwd"), attack::SECRET).unwrap();
    let findings = attack::run(Kind::Virtual, &[Group::Host], &places, &tenant, &neighbour).await.unwrap();
    let red = findings.iter().find(|one| one.name == "a link to the host").unwrap();
    assert_eq!(red.verdict, Verdict::Escaped, "{red:?}");
}

/// What a command can use up; the same with less is let through.
#[tokio::test]
async fn b05_many_files_and_names_end_at_a_limit_and_a_few_do_not() {
    let tenant = Tenant::with(|spec| spec.limits.written_bytes = 4 << 20);
    let many =
        |count: u32| format!("mkdir -p d && for i in $(seq {count}); do echo $i > d/$i || exit 9; done; ls d | wc -l");
    assert_eq!(tenant.print(&many(200)).await, "200\n");
    let output = tenant.run(&many(20_000)).await;
    assert!(!output.succeeded(), "{output:?}");
    let made = std::fs::read_dir(tenant.file("d")).unwrap().count();
    assert!((200..20_000).contains(&made), "{made} files: each counts for a block");
    assert_eq!(tenant.print("rm -r d; echo still").await, "still\n");
}
