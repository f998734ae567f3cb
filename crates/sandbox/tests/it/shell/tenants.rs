//! Who shares what.

use std::fs;

use bailiwick_shell::{Isolation, SharedTmp};

use super::{LONG, Tenant, pool, run, stderr, stdout, worker};

#[tokio::test]
async fn two_tenants_do_not_see_each_other() {
    for isolation in [worker(), Isolation::Thread] {
        let shared = pool(isolation);
        let one = Tenant::with(|spec| spec.pool = shared.clone());
        let two = Tenant::with(|spec| spec.pool = shared.clone());
        one.print("echo one > f; echo one > /tmp/f; echo one > /f").await;
        let output = two.run("cat f; cat /tmp/f; cat /f; ls -A /workspace /tmp").await;
        assert!(!stdout(&output).contains("one"), "{output:?}");
        assert_eq!(stderr(&output).matches("No such file or directory").count(), 3, "{output:?}");
        assert_eq!(one.print("cat f /tmp/f").await, "one\none\n");
        let path = one.file("f").display().to_string();
        assert!(stderr(&two.run(&format!("cat {path}")).await).contains("No such file or directory"));
    }
}

#[tokio::test]
async fn b02_a_shared_tmp_is_shared_and_a_private_one_is_not() {
    let tenant = Tenant::new();
    let shared = tenant.other(|_| {});
    let private = SharedTmp::new(tenant.top.path(), 1 << 20, None).unwrap();
    let apart = tenant.other(|spec| spec.tmp = private);
    tenant.print("echo hello > /tmp/note; echo file > note").await;
    let output = run(&shared, "cat /tmp/note note", LONG).await;
    assert_eq!(stdout(&output), "hello\nfile\n");
    let output = run(&apart, "ls -A /tmp; cat note; cat /tmp/note", LONG).await;
    assert_eq!(stdout(&output), "file\n");
    assert!(stderr(&output).contains("No such file or directory"), "{output:?}");
}

#[tokio::test]
async fn a_tmp_is_bounded_over_calls_and_removed_at_the_end() {
    let tenant = Tenant::new();
    let tmp = SharedTmp::new(tenant.top.path(), 1 << 20, None).unwrap();
    let before = fs::read_dir(tenant.top.path()).unwrap().count();
    let shell = tenant.other(|spec| spec.tmp = tmp);
    let fill = "dd if=/dev/zero of=/tmp/$RANDOM-$RANDOM bs=1k count=600 status=none";
    assert!(run(&shell, fill, LONG).await.succeeded());
    let output = run(&shell, fill, LONG).await;
    assert!(!output.succeeded() && stderr(&output).contains("No space left"), "{output:?}");
    assert!(run(&shell, "rm -f /tmp/*", LONG).await.succeeded());
    assert!(run(&shell, fill, LONG).await.succeeded());
    drop(shell);
    assert_eq!(fs::read_dir(tenant.top.path()).unwrap().count(), before - 1);
}
