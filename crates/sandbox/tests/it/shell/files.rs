//! What a command sees and changes on the disk.

use std::fs;
use std::os::unix::fs::symlink;

use bailiwick_files::{Access, Workspace};
use bailiwick_shell::{Isolation, Mount, Status};

use super::{LONG, SECRET, Tenant, pool, run, stderr, stdout};

#[tokio::test]
async fn b03_writes_of_a_read_write_workspace_land_in_the_space() {
    let tenant = Tenant::new();
    fs::write(tenant.file("in.txt"), "b\na\nb\n").unwrap();
    let text = tenant
        .print("sort -u in.txt > out.txt; echo more >> out.txt; mkdir -p d/e; mv out.txt d/e/; cat d/e/out.txt")
        .await;
    assert_eq!(text, "a\nb\nmore\n");
    assert_eq!(fs::read_to_string(tenant.file("d/e/out.txt")).unwrap(), "a\nb\nmore\n");
    assert_eq!(tenant.print("cd d && pwd && ls e && rm -r e && ls").await, "/workspace/d\nout.txt\n");
    assert!(!tenant.file("d/e").exists());
}

#[tokio::test]
async fn text_tools_work_together() {
    let tenant = Tenant::new();
    let text = tenant
        .print(
            "printf 'x,1\\ny,2\\n' > t.csv; awk -F, '{s+=$2} END{print s}' t.csv; sed -n 's/y,/z=/p' t.csv; \
             echo '{\"a\":[1,2]}' | jq -c .a; grep -c . t.csv; tar czf t.tgz t.csv && tar tzf t.tgz; \
             gzip -c t.csv | gunzip -c | head -1; find . -name '*.csv' | wc -l",
        )
        .await;
    assert_eq!(text, "3\nz=2\n[1,2]\n2\nt.csv\nx,1\n1\n");
}

#[tokio::test]
async fn b03_a_read_only_workspace_refuses_each_change() {
    let tenant = Tenant::new();
    fs::write(tenant.file("f"), "kept").unwrap();
    let files = Workspace::open(&tenant.file(""), Access::ReadOnly, None).unwrap();
    let shell = tenant.other(|spec| spec.workspace = Mount::Files(files));
    for command in [
        "echo x > f",
        "echo x > new",
        "echo x >> f",
        "rm f",
        "mv f g",
        "cp f g",
        "mkdir d",
        "touch new",
        "chmod 777 f",
        "sed -i s/kept/gone/ f",
    ] {
        let output = run(&shell, command, LONG).await;
        assert!(!output.succeeded(), "{command}: {output:?}");
        assert!(stderr(&output).contains("Read-only file system"), "{command}: {output:?}");
    }
    let output = run(&shell, "cat f; echo scratch > /tmp/s && cat /tmp/s", LONG).await;
    assert_eq!((output.succeeded(), stdout(&output).as_str()), (true, "keptscratch\n"));
    assert_eq!(fs::read_to_string(tenant.file("f")).unwrap(), "kept");
    assert_eq!(fs::read_dir(tenant.file("")).unwrap().count(), 1);
}

#[tokio::test]
async fn b03_without_a_workspace_its_files_are_absent() {
    let tenant = Tenant::new();
    fs::write(tenant.file("f"), "hidden").unwrap();
    let shell = tenant.other(|spec| spec.workspace = Mount::Absent);
    let output = run(&shell, "pwd; ls -A; echo x > scratch && cat scratch", LONG).await;
    assert_eq!(stdout(&output), "/workspace\nx\n");
    assert!(stderr(&run(&shell, "cat f", LONG).await).contains("No such file or directory"));
    assert!(!tenant.file("scratch").exists());
}

#[tokio::test]
async fn a06_links_that_lead_outside_are_refused_for_reading_and_writing() {
    for isolation in [super::worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        let outside = tenant.top.path().join("outside.txt");
        fs::write(tenant.file("honest"), "honest").unwrap();
        symlink(&outside, tenant.file("sym")).unwrap();
        symlink("..", tenant.file("up")).unwrap();
        symlink("/etc", tenant.file("etc")).unwrap();
        fs::hard_link(&outside, tenant.file("hard")).unwrap();
        for name in ["sym", "up/outside.txt", "hard", "etc/passwd"] {
            for command in [
                format!("cat {name}"),
                format!("cat < {name}"),
                format!("cp {name} copy"),
                format!("echo x > {name}"),
                format!("echo x >> {name}"),
                format!("tee {name} <<< x >/dev/null"),
                format!("head -c 5 {name}"),
            ] {
                let output = tenant.run(&command).await;
                assert!(!output.succeeded(), "{command}: {output:?}");
                assert!(stderr(&output).contains("Permission denied"), "{command}: {output:?}");
                assert!(!stdout(&output).contains(SECRET), "{command}");
            }
            // The interpreter tells every failure of `source` as a missing
            // file, so here the control is a file that can be sourced.
            let output = tenant.run(&format!("echo 'echo sourced' > ok.sh; . ./ok.sh; . ./{name}")).await;
            assert!(!output.succeeded() && !stderr(&output).contains("SECRET"), "{output:?}");
            assert_eq!(stdout(&output), "sourced\n");
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), SECRET);
        assert_eq!(tenant.print("cat honest; rm sym up; ls").await, "honestetc\nhard\nhonest\nok.sh\n");
        assert!(outside.exists());
    }
}

#[tokio::test]
async fn a06_links_cannot_be_made() {
    let tenant = Tenant::new();
    for command in ["ln -s /etc/passwd l", "ln f l", "ln -s ../outside.txt l", "ln -sf / /tmp/l"] {
        let output = tenant.run(&format!("echo x > f; {command}")).await;
        assert!(!output.succeeded() && !stderr(&output).contains("not found"), "{command}: {output:?}");
    }
    assert!(!tenant.file("l").exists() && tenant.file("l").symlink_metadata().is_err());
}

#[tokio::test]
async fn a05_paths_that_climb_end_at_the_virtual_root() {
    let tenant = Tenant::new();
    let output = tenant
        .run("cat ../outside.txt ../../outside.txt /workspace/../outside.txt; cd ../../..; pwd; cat outside.txt; ls")
        .await;
    let text = stdout(&output);
    assert!(text.starts_with("/\n") && text.contains("workspace"), "{output:?}");
    assert!(!text.contains(SECRET) && !text.contains("outside.txt"), "{output:?}");
    assert_eq!(stderr(&output).matches("No such file or directory").count(), 4, "{output:?}");
    let planted = tenant.run("echo x > ../planted; echo x > /planted; ls /planted").await;
    assert_eq!(stdout(&planted), "/planted\n");
    assert!(!tenant.top.path().join("planted").exists());
}

#[tokio::test]
async fn the_rest_of_the_system_is_virtual() {
    let tenant = Tenant::new();
    let passwd = tenant.print("cat /etc/passwd").await;
    assert!(passwd.contains("agent") && !passwd.contains("root:x:0:0"), "{passwd}");
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(tenant.print("hostname; id -u; whoami").await, "sandbox\n1000\nagent\n");
    assert_ne!(host_name.trim(), "sandbox");
    // Reading what a host has and this system must not.
    for path in ["/proc/self/environ", "/proc/1/environ", "/proc/self/maps", "/etc/shadow", "/root/.bashrc"] {
        let output = tenant.run(&format!("cat {path}")).await;
        assert!(stderr(&output).contains("No such file or directory"), "{path}: {output:?}");
    }
    let here = tenant.top.path().display().to_string();
    let output = tenant.run(&format!("ls {here}; cat {here}/outside.txt")).await;
    assert_eq!(stderr(&output).matches("No such file or directory").count(), 2, "{output:?}");
}

#[tokio::test]
async fn a_directory_with_too_many_entries_is_an_error_and_a_large_one_is_whole() {
    let tenant = Tenant::with(|spec| spec.limits.directory_entries = 3000);
    for number in 0..2500 {
        fs::write(tenant.file(&format!("f{number}")), "").unwrap();
    }
    assert_eq!(tenant.print("echo f* | wc -w").await.trim(), "2500");
    for number in 2500..3500 {
        fs::write(tenant.file(&format!("f{number}")), "").unwrap();
    }
    let output = tenant.run("ls | wc -l").await;
    assert!(!output.succeeded(), "{output:?}");
}

#[tokio::test]
async fn a_write_past_the_limit_is_no_success() {
    let tenant = Tenant::with(|spec| spec.limits.written_bytes = 1 << 20);
    let output = tenant.run("for i in $(seq 300); do echo x > f$i; done; true").await;
    assert_eq!(output.status, Status::Exited(0));
    assert!(!output.succeeded() && output.warnings.iter().any(|line| line.contains("write limit")), "{output:?}");
    assert!(fs::read_dir(tenant.file("")).unwrap().count() <= 256);
}
