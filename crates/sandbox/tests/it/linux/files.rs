//! Workspaces, temporary folders and users.

use std::os::unix::fs::MetadataExt;

use bailiwick_sandbox::linux::{ExitStatus, WorkspaceAccess};

use super::harness::{Host, sh};
use super::probe::{place_probe, probe_inside};

#[tokio::test(flavor = "multi_thread")]
async fn b02_two_jails_do_not_see_each_others_tmp() {
    let host = Host::new().await;
    let (one, other) = (host.jail(&host.space()).await, host.jail(&host.space()).await);
    assert_eq!(sh(&one, "echo mine > /tmp/x && cat /tmp/x").await.stdout.text, "mine\n");
    let ran = sh(&other, "ls -A /tmp && cat /tmp/x").await;
    assert_eq!(ran.stdout.text, "");
    assert!(ran.stderr.text.contains("No such file"), "{ran:?}");
    // A later jail of the same space starts empty as well.
    let ran = sh(&other, "ls -A /var/tmp /dev/shm | grep -v :").await;
    assert_eq!(ran.stdout.text.trim(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn b02_jails_with_a_shared_tmp_share_it() {
    let host = Host::new().await;
    let mut space = host.space();
    space.shared_tmp = Some(host.folder(space.user));
    let (one, other) = (host.jail(&space).await, host.jail(&space).await);
    assert_eq!(sh(&one, "echo ours > /tmp/x").await.status, ExitStatus::Exited(0));
    assert_eq!(sh(&other, "cat /tmp/x").await.stdout.text, "ours\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_read_only_workspace_answers_erofs() {
    let host = Host::new().await;
    let mut space = host.space();
    place_probe(&host, &space);
    let tries = [
        "files",
        "create:/workspace/new",
        "mkdir:/workspace/folder",
        "write:/workspace/old",
        "truncate:/workspace/old",
        "unlink:/workspace/old",
        "read:/workspace/old",
    ];
    for (access, expected) in [(WorkspaceAccess::ReadOnly, "30"), (WorkspaceAccess::ReadWrite, "ok")] {
        let old = space.workspace.join("old");
        std::fs::write(&old, "old").unwrap();
        host.give(&old, space.user);
        space.access = access;
        let jail = host.jail(&space).await;
        let answers = probe_inside(&jail, &tries).await;
        for (name, answer) in &answers {
            // Unlinked by the control run, so it goes first.
            if name == "read:/workspace/old" {
                assert_eq!(answer, if expected == "ok" { "2" } else { "ok" });
            } else {
                assert_eq!(answer, expected, "{access:?} {name}");
            }
        }
        assert_eq!(answers.len(), tries.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_writes_land_in_the_workspace_and_nowhere_else() {
    let host = Host::new().await;
    let (one, other) = (host.space(), host.space());
    let (first, second) = (host.jail(&one).await, host.jail(&other).await);
    sh(&first, "echo hello > /workspace/x").await;
    assert_eq!(std::fs::read_to_string(one.workspace.join("x")).unwrap(), "hello\n");
    assert_eq!(sh(&second, "ls -A /workspace").await.stdout.text, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_commands_run_as_the_jails_user_who_owns_nothing_else() {
    let host = Host::new().await;
    let space = host.space();
    let jail = host.jail(&space).await;
    let script = "id -u; id -g; id -G; touch /workspace/x; \
        find / -xdev -user $(id -u) -not -path /workspace 2>/dev/null";
    let ran = sh(&jail, script).await;
    let mut lines = ran.stdout.text.lines();
    let inside = if host.is_native() { space.user.uid } else { 1000 };
    for _ in 0..3 {
        assert_eq!(lines.next(), Some(inside.to_string().as_str()));
    }
    let owner = std::fs::metadata(space.workspace.join("x")).unwrap().uid();
    assert_eq!(owner, jail.receipt().user);
    if host.is_native() {
        assert_eq!(owner, space.user.uid);
        // On the root file system nothing is the jail's.
        assert_eq!(lines.next(), None, "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_behind_a_link_or_a_foreign_user_is_refused() {
    let host = Host::new().await;
    let mut space = host.space();
    let link = host.folder(space.user).join("link");
    std::os::unix::fs::symlink(&space.workspace, &link).unwrap();
    assert!(host.launcher.start(host.spec(&space)).await.is_ok(), "the control starts");
    space.workspace = link;
    assert!(host.launcher.start(host.spec(&space)).await.is_err());
    let mut space = host.space();
    space.user.uid = 0;
    assert!(host.launcher.start(host.spec(&space)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn real_tools_work() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let script = "set -e; cd /workspace; git init -q; git config user.email a@b; \
        git config user.name a; echo x > f; git add f; git commit -qm one; git log --oneline | wc -l; \
        tar cf /tmp/a.tar f; tar tf /tmp/a.tar; echo 'a b' | awk '{print $2}'; \
        mkfifo p; (echo through > p &); cat p; echo named > /dev/stdout; \
        getent services https | tr -s ' '; ls -l /proc/self/fd > /dev/null; nproc > /dev/null";
    let ran = sh(&jail, script).await;
    assert_eq!(ran.status, ExitStatus::Exited(0), "{ran:?}");
    assert_eq!(ran.stdout.text, "1\nf\nb\nthrough\nnamed\nhttps 443/tcp\n");
    // Larger programs, as far as this host has them.
    for (program, script) in [
        ("python3", "python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-42])[0])'"),
        ("node", "node -e 'setTimeout(() => console.log(42), 1)'"),
        ("gcc", "echo 'int main(void) { return 42; }' | gcc -x c - -o a; ./a; echo $?"),
        ("perl", "perl -e 'print 6 * 7, \"\\n\"'"),
    ] {
        if std::path::Path::new("/usr/bin").join(program).exists() {
            let ran = sh(&jail, script).await;
            assert_eq!(ran.stdout.text, "42\n", "{program}: {ran:?}");
        }
    }
}
