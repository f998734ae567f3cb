//! What a script may try in a sandbox of real programs, beside the same act outside.

use super::{Attack, Control, Expected, Place};
use Control::{Always, AsRoot};
use Expected::{Prints, Says};

const fn attack(
    name: &'static str,
    script: &'static str,
    expected: Expected,
    check: &'static str,
    control: Control,
) -> Attack {
    Attack { name, script, expected, place: Place::Outside, check, control }
}

const ABSENT: &[&str] = &["No such file"];
const REFUSED: &[&str] =
    &["Permission denied", "permission denied", "Operation not permitted", "Read-only file system"];

/// `{server}` is this process, `{other}` another tenant's workspace with a file `secret`, `{own}` a folder
/// of the host, `{port}` a port that listens on the host's loopback.
#[rustfmt::skip]
pub(super) const ATTACKS: &[Attack] = &[
    // Processes.
    attack("signal the server", "kill -0 {server}", Says(&["No such process"]), "kill -0 {server} && echo control", Always),
    attack("read the server's memory map", "cat /proc/{server}/maps", Says(ABSENT), "grep -q . /proc/{server}/comm && echo control", Always),
    attack("signal the first process", "kill -9 1; sleep 0.1; echo alive", Says(&["alive"]), "bash -c 'kill -9 $$' || echo control", Always),
    attack("be spared when memory runs out", "cat /proc/self/oom_score_adj; echo -1000 > /proc/self/oom_score_adj", Says(REFUSED), "(echo 500 > /proc/self/oom_score_adj && echo 400 > /proc/self/oom_score_adj) && echo control", Always),
    attack("leave a core file", "ulimit -c; ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls core*", Says(&["Operation not permitted", "cannot modify limit"]), "ulimit -c unlimited && echo control", AsRoot),
    attack("raise the priority", "nice -n -5 true", Says(REFUSED), "nice -n -5 true && echo control", AsRoot),
    attack("enter the host's namespaces", "nsenter -t 1 -n -m true", Says(REFUSED), "nsenter -t {server} -n -m true && echo control", AsRoot),
    // Namespaces and mounts.
    attack("a user namespace", "unshare -U true", Says(REFUSED), "unshare -Ur true && echo control", Always),
    attack("mount", "mount -t tmpfs x /tmp", Says(&["Operation not permitted", "permission denied", "must be superuser"]), "unshare -Urm mount -t tmpfs x /mnt && echo control", Always),
    attack("remount the programs", "mount -o remount,rw,bind /usr", Says(&["Operation not permitted", "permission denied", "must be superuser"]), "unshare -Urm sh -c 'mount -t tmpfs x /mnt && umount /mnt' && echo control", Always),
    attack("change the root", "chroot /workspace true", Says(REFUSED), "unshare -Ur /usr/sbin/chroot / true && echo control", Always),
    // Files.
    attack("another tenant's files", "cat {other}/secret", Says(ABSENT), "test -s {other}/secret && echo control", Always),
    attack("the way up from the workspace", "cat /workspace/../../../../../{other}/secret", Says(ABSENT), "test -s /proc/../../../../{other}/secret && echo control", Always),
    attack("a link to another tenant's file", "ln -s {other}/secret s && cat s", Says(ABSENT), "ln -sf {other}/secret {own}/s && test -s {own}/s && echo control", Always),
    attack("the host's passwords", "cat /etc/shadow", Says(ABSENT), "test -e /etc/shadow && echo control", Always),
    attack("the host's users", "grep -c . /etc/passwd", Prints("3\n"), "test $(grep -c . /etc/passwd) -gt 3 && echo control", Always),
    attack("the host's folders", "for f in /root /home /boot /srv /opt /sys; do ls -A $f 2>/dev/null | grep -q . && echo HAVE $f; done; echo none", Prints("none\n"), "for f in /root /home /boot /srv /opt /sys; do ls -A $f 2>/dev/null | grep -q . && echo control; done", Always),
    attack("write among the programs", "echo x > /usr/bin/x", Says(REFUSED), "echo x > {own}/x && echo control", Always),
    attack("write into the root folder", "echo x > /x", Says(REFUSED), "echo x > {own}/x && echo control", Always),
    attack("add a user", "echo evil::0:0::: >> /etc/passwd", Says(REFUSED), "echo x >> {own}/x && echo control", Always),
    attack("a hard link to a program", "ln /usr/bin/id id", Says(&["ln:"]), "cd {own} && echo a > a && ln -f a b && echo control", Always),
    attack("a device", "mknod disk b 8 1", Says(REFUSED), "mknod {own}/null c 1 3 && echo control", AsRoot),
    attack("own a program of root's", "cp /usr/bin/id i && chown 0:0 i", Says(&["ermitted", "Invalid argument"]), "cp /usr/bin/id {own}/i && chown 0:0 {own}/i && echo control", AsRoot),
    // Devices and sockets.
    attack("devices", "for d in mem kmem port vda sda nvme0 kvm vsock vhost-vsock fuse net/tun kmsg userfaultfd loop-control mapper/control; do [ ! -e /dev/$d ] || echo HAVE $d; done; echo none", Says(&["none"]), "for d in mem kvm vsock fuse kmsg net/tun vda; do [ ! -e /dev/$d ] || echo control; done", Always),
    attack("sockets of daemons", "find /run /var/run /tmp -type s; ls -A /run", Prints("bailiwick\n"), "ls -A /run | grep -q . && echo control", Always),
    attack("the kernel's log", "dmesg 2>/dev/null | wc -c; timeout 2 cat /proc/kmsg 2>/dev/null | wc -c", Prints("0\n0\n"), "dmesg 2>/dev/null | wc -c | grep -qvx 0 && echo control", AsRoot),
    attack("the host's ports", "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected", Says(&["refused"]), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo control", Always),
    // The machine.
    attack("the host's name", "cat /proc/sys/kernel/hostname", Says(&["sandbox"]), "grep -qvx sandbox /proc/sys/kernel/hostname && echo control", Always),
    attack("a setting of the kernel", "echo 1 > /proc/sys/vm/drop_caches", Says(REFUSED), "test -w /proc/sys/vm/drop_caches && echo control", AsRoot),
    attack("the server's own port", "exec 3<>/dev/tcp/127.0.0.1/{server_port} && echo connected", Says(&["refused"]), "exec 3<>/dev/tcp/127.0.0.1/{server_port} && echo control", Always),
    attack("an address of the internet", "exec 3<>/dev/tcp/192.0.2.1/80 && echo connected", Says(&["unreachable"]), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo control", Always),
    attack("an address of IPv6", "exec 3<>/dev/tcp/2001:db8::1/80 && echo connected", Says(&["unreachable", "assign requested"]), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo control", Always),
    attack("a datagram", "echo x > /dev/udp/192.0.2.1/53 && echo connected", Says(&["unreachable"]), "echo x > /dev/udp/127.0.0.1/{port} && echo control", Always),
    attack("a program that makes one root", "./root-id -u | grep -qx \"$(id -u)\" && echo same", Prints("same\n"), "exec 9< {space}/root-id; setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/9 -u | grep -qx 0 && echo control", AsRoot),
    attack("be root", "test $(id -u) = 0 && echo REACHED; id -u | grep -vx 0 > /dev/null && echo user", Prints("user\n"), "id -u > /dev/null && echo control", Always),
];
