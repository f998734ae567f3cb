//! What a command may try in the virtual shell, beside the same act by the host's own shell: what is refused inside
//! is there outside. `not found` is the refusal where a program is meant, for there are none.

use super::{Attack, Control, Expected, Place};
use Expected::{Fails, Prints, Says};

const fn attack(name: &'static str, script: &'static str, expected: Expected, check: &'static str) -> Attack {
    Attack { name, script, expected, place: Place::Outside, check, control: Control::Always }
}

#[rustfmt::skip]
pub(super) const ATTACKS: &[Attack] = &[
    attack("passwd of the host", "head -1 /etc/passwd", Says(&["agent:x:1000"]), "{ head -1 /etc/passwd; } | grep -q . && echo control"),
    attack("shadow", "cat /etc/shadow", Says(&["No such file"]), "{ ls /etc/shadow; } | grep -q . && echo control"),
    attack("dots out of the workspace", "cat ../../../../etc/passwd", Says(&["agent:x:1000"]), "{ cat ../../../../../../../../etc/passwd; } | grep -q . && echo control"),
    attack("the host's programs", "ls /usr/bin/setpriv /usr/lib", Says(&["No such file"]), "{ ls /usr/bin/setpriv; } | grep -q . && echo control"),
    attack("a path of the server", "ls {own}", Says(&["No such file"]), "{ ls {own}; } | grep -q . && echo control"),
    attack("a file beside the workspace", "cat {own}/outside.txt ../outside.txt", Says(&["No such file"]), "{ cat {own}/outside.txt; } | grep -q . && echo control"),
    attack("a link to the host", "cat link-to-passwd", Says(&["not followed"]), "{ cat {space}/link-to-passwd; } | grep -q . && echo control"),
    attack("a link made here", "ln -s /etc/passwd made && cat made", Says(&["cannot be made"]), "{ ln -sf /etc/passwd {own}/made && cat {own}/made; } | grep -q . && echo control"),
    attack("a hard link", "ln link-outside hard", Says(&["ln:"]), "{ ln -f {own}/outside.txt {own}/hard && cat {own}/hard; } | grep -q . && echo control"),
    attack("a pipe that nobody writes", "timeout 5 cat fifo", Says(&["fifo"]), "{ test -p {space}/fifo && echo there; } | grep -q . && echo control"),
    attack("a device made here", "mknod dev c 1 3", Says(&["not found"]), "{ command -v mknod; } | grep -q . && echo control"),
    attack("the server's environment", "cat /proc/self/environ /proc/1/environ", Says(&["No such file"]), "{ grep -qz PATH /proc/self/environ && echo full; } | grep -q . && echo control"),
    attack("the server's process", "cat /proc/{server}/status", Says(&["No such file"]), "{ cat /proc/{server}/comm; } | grep -q . && echo control"),
    attack("the kernel's settings", "cat /proc/sys/kernel/core_pattern", Says(&["No such file"]), "{ cat /proc/sys/kernel/core_pattern; } | grep -q . && echo control"),
    attack("variables of the server", "env | grep -c CARGO", Prints("0\n"), "{ env | grep CARGO; } | grep -q . && echo control"),
    attack("the host's name", "hostname", Prints("sandbox\n"), "{ cat /proc/sys/kernel/hostname; } | grep -q . && echo control"),
    attack("the host's user", "whoami", Prints("agent\n"), "{ id -un; } | grep -q . && echo control"),
    attack("a program of the host", "/usr/bin/setpriv --dump", Says(&["setpriv: "]), "{ /usr/bin/setpriv --dump; } | grep -q . && echo control"),
    attack("a program in the workspace", "chmod +x program && ./program", Prints("interpreted\n"), "{ chmod +x {space}/program && {space}/program; } | grep -q . && echo control"),
    attack("an interpreter", "python3 -c 'print(1)'", Says(&["not found"]), "{ command -v python3; } | grep -q . && echo control"),
    attack("a signal to everybody", "kill -9 -1; echo still", Says(&["still"]), "{ command -v kill; } | grep -q . && echo control"),
    attack("mounts", "mount -t tmpfs x /workspace; unshare -U true; chroot / true", Says(&["not found"]), "{ command -v mount unshare chroot; } | grep -q . && echo control"),
    attack("a port by its name", "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected", Says(&["/dev/tcp"]), "{ exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; } | grep -q . && echo control"),
    attack("curl", "curl -s --max-time 3 http://127.0.0.1:{port}/", Says(&["curl"]), "{ exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; } | grep -q . && echo control"),
    attack("wget", "wget -q -O - http://127.0.0.1:{port}/", Says(&["wget"]), "{ exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; } | grep -q . && echo control"),
    attack("ssh and nc", "ssh localhost; nc 127.0.0.1 {port}", Says(&["not found"]), "{ exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; } | grep -q . && echo control"),
];

const fn limit(name: &'static str, script: &'static str, expected: Expected, check: &'static str) -> Attack {
    Attack { name, script, expected, place: Place::Inside, check, control: Control::Always }
}

/// What a command may use up; the control is less of the same. None of it may look like success.
#[rustfmt::skip]
pub(super) const LIMITS: &[Attack] = &[
    limit("a loop without end", "while true; do :; done", Fails, "for i in 1 2 3; do :; done; echo control"),
    limit("recursion without end", "f() { f; }; f", Fails, "f() { echo control; }; f"),
    limit("a text that doubles", "x=a; while :; do x=$x$x; done", Fails, "x=a; x=$x$x; echo control"),
    limit("a fork bomb", ":(){ :|:& };:; sleep 100", Fails, "true & wait; echo control"),
    limit("ten gibibytes through a pipe", "yes | head -c 10G | wc -c", Fails, "yes | head -c 10K | wc -c && echo control"),
    limit("a file of ten gibibytes", "dd if=/dev/zero of=/tmp/big bs=1M count=10240", Fails, "dd if=/dev/zero of=/tmp/small bs=1k count=1 && echo control"),
    limit("a word of a billion", "echo {1..1000000000} | wc -c", Fails, "echo {1..10} | wc -c && echo control"),
    limit("a program of awk without end", "awk 'BEGIN{while(1){}}'", Fails, "awk 'BEGIN{print \"control\"}'"),
];
