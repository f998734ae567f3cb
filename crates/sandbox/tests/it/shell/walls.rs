//! B09: each call has a receipt; a worker that lacks a wall runs nothing. That the missing wall also lets
//! more through is shown beside the walls themselves, in `confine`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bailiwick_files::{Access, Owner, Workspace};
use bailiwick_sandbox::Workers;
use bailiwick_sandbox::linux::HelperPath;
use bailiwick_shell::{Confinement, Fact, Isolation, Landlock, Mount, OnDifference, Shell, ShellError, Stream, Wall};
use tokio_util::sync::CancellationToken;

use super::{LONG, Tenant, pool};

#[tokio::test]
async fn b09_a_call_has_its_workers_receipt() {
    let tenant = Tenant::new();
    let output = tenant.run("echo hello").await;
    let Confinement::Checked(receipt) = &output.confinement else { panic!("{output:?}") };
    assert_eq!((receipt.no_new_privileges, receipt.filter_mode, receipt.landlock), (1, 2, Landlock::Enforced));
    assert!(receipt.filters >= 2);
    assert_eq!(receipt.user, rustix::process::getuid().as_raw());
    let record = receipt.record().to_string();
    assert!(record.contains("\"Max open files\":64"), "{record}");
    for hidden in [tenant.top.path().to_str().unwrap(), "worker", "/"] {
        assert!(!record.contains(hidden), "{hidden}: {record}");
    }
    // On a thread of the server there is nothing to show, and it says so.
    let inside = Tenant::with(|spec| spec.pool = pool(Isolation::Thread));
    assert_eq!(inside.run("echo hello").await.confinement, Confinement::Thread);
    // A call that was canceled before its worker was looked at has none either.
    let canceled = CancellationToken::new();
    canceled.cancel();
    let output = tenant.shell.exec("true", LONG, &mut |_: Stream, _: &[u8]| {}, canceled).await.unwrap();
    assert_eq!(output.confinement, Confinement::NotBegun);
}

async fn refused(shell: Shell) -> Vec<Fact> {
    let ran = shell.exec("echo ran > ran", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await;
    match ran {
        Err(error @ ShellError::Receipt { .. }) => {
            assert_eq!(error.code(), "receipt_differs");
            let ShellError::Receipt { differs } = error else { unreachable!() };
            differs
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn b09_a_worker_without_a_wall_is_named_and_runs_nothing() {
    let tenant = Tenant::new();
    for (walls, named) in [
        (&[Wall::Limits][..], &[Fact::ResourceLimits][..]),
        (&[Wall::Landlock], &[Fact::Landlock]),
        (&[Wall::Calls], &[Fact::Filters]),
        (&[Wall::Descriptors], &[Fact::Descriptors]),
        // Landlock and the list need it, so all three go.
        (
            &[Wall::NoNewPrivileges, Wall::Landlock, Wall::Calls],
            &[Fact::NoNewPrivileges, Fact::Filters, Fact::Landlock],
        ),
    ] {
        assert_eq!(refused(tenant.shell.clone().without(walls, OnDifference::Fail)).await, named, "{walls:?}");
        assert!(!tenant.file("ran").exists(), "{walls:?}");
    }
    // The environment is the maker's, and so the same for all of its workers.
    let helper = HelperPath::At(env!("CARGO_BIN_EXE_bailiwick-helper").into());
    let workers = Isolation::Process(Arc::new(Workers::new(helper).leaving_in("LEFT_IN", "1")));
    let full = tenant.other(|spec| spec.pool = pool(workers));
    assert_eq!(refused(full).await, [Fact::Environment]);
    assert!(!tenant.file("ran").exists());
    // The control: with all walls the same command runs.
    tenant.print("echo ran > ran").await;
    assert!(tenant.file("ran").exists());
}

/// A command cannot notice: the interpreter's own bounds come first, and its environment is its own, and
/// neither can be left out. So for limits and environment the kernel's view is asserted directly.
#[tokio::test]
async fn b09_b05_a_worker_without_limits_is_not_ended_by_them() {
    let tenant = Tenant::with(|spec| spec.limits.file_bytes = 1 << 20);
    let limits = |output: &bailiwick_shell::Output| match &output.confinement {
        Confinement::Checked(receipt) => receipt.limits.len(),
        other => panic!("{other:?}"),
    };
    let open = tenant.shell.clone().without(&[Wall::Limits], OnDifference::Tolerate);
    let (whole, open) = (tenant.run("echo x").await, super::run(&open, "echo x", LONG).await);
    assert_eq!((limits(&whole), limits(&open)), (5, 0), "none of the five is in force");
}

#[tokio::test]
async fn b09_b07_a_worker_of_another_user_than_the_workspaces_owner_runs_nothing() {
    if !rustix::process::geteuid().is_root() {
        // Only root changes users.
        return;
    }
    let owner = Owner { uid: 200_123, gid: 200_123 };
    let tenant = Tenant::with(|_| {});
    let folder = tenant.top.path().join("owned");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(owner.uid), Some(owner.gid)).unwrap();
    let files = Workspace::open(&folder, Access::ReadWrite, Some(owner)).unwrap();
    let tmp = bailiwick_shell::SharedTmp::new(tenant.top.path(), 1 << 20, Some(owner)).unwrap();
    let shell = tenant.other(|spec| {
        spec.workspace = Mount::Files(files);
        spec.tmp = tmp;
    });
    let output = super::run(&shell, "echo ran > ran", LONG).await;
    let Confinement::Checked(receipt) = &output.confinement else { panic!("{output:?}") };
    assert_eq!((receipt.user, receipt.group, receipt.capabilities), (owner.uid, owner.gid, 0));
    fs::remove_file(folder.join("ran")).unwrap();
    let without = |difference| shell.clone().without(&[Wall::User], difference);
    assert_eq!(refused(without(OnDifference::Fail)).await, [Fact::User, Fact::Capabilities]);
    assert!(!folder.join("ran").exists());
    // What the wall is for: a file of root's that lies in the workspace.
    fs::write(folder.join("private"), "of root").unwrap();
    fs::set_permissions(folder.join("private"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(super::stdout(&super::run(&shell, "cat private", LONG).await), "");
    let open = super::run(&without(OnDifference::Tolerate), "cat private", LONG).await;
    assert_eq!(super::stdout(&open), "of root");
}
