//! A Podman service in folders of its own, with images that need no registry.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// An image with a static busybox and nothing else: no libc at all.
pub const BARE: &str = "localhost/bare";

const DEBIAN: &str = "podman and runc, from Debian's packages";

/// A Podman service, which ends with this value and takes everything along.
pub struct Podman {
    dir: TempDir,
    service: Option<Child>,
}

impl Podman {
    /// Starts it. Where Podman does not run, this fails and says why: what cannot be tried is not shown.
    pub fn start() -> Self {
        assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "containers are tried as root");
        let dir = tempfile::Builder::new().prefix("bw-podman").tempdir().unwrap();
        // Jails' users must come to their folders.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // No ulimits beyond what a root without CAP_SYS_RESOURCE may set; runc, because crun refuses hosts with
        // control groups of both versions; processes that clean up after themselves at once; no state outside.
        let conf = format!(
            "[containers]\ndefault_ulimits = []\n[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
             exit_command_delay = 1\nevents_logger = \"none\"\nlock_type = \"file\"\ntmp_dir = \"{}\"\n",
            at("tmp")
        );
        fs::write(dir.path().join("containers.conf"), conf).unwrap();
        let mut engine = Self { service: None, dir };
        engine.import(BARE, &[]);
        let socket = format!("unix://{}", engine.socket().display());
        let log = File::create(engine.dir.path().join("service.log")).unwrap();
        let mut command = engine.command(&["system", "service", "--time=0", &socket]);
        engine.service = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect(DEBIAN));
        for _ in 0..500 {
            if UnixStream::connect(engine.socket()).is_ok() {
                return engine;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("podman does not listen: {}", fs::read_to_string(engine.dir.path().join("service.log")).unwrap());
    }

    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", self.dir.path().join("containers.conf"))
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"))
            // Its monitors leave a file in there when memory runs out.
            .current_dir(self.dir.path())
            .args(["--storage-driver", "overlay"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs Podman itself, beside the service; what it printed.
    pub fn podman(&self, arguments: &[&str]) -> String {
        let ran = self.command(arguments).output().expect(DEBIAN);
        assert!(ran.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// The containers that there are, running or not.
    pub fn containers(&self) -> Vec<String> {
        self.podman(&["ps", "--all", "--quiet", "--no-trunc"]).lines().map(str::to_owned).collect()
    }

    /// Waits until there are so many.
    pub async fn has(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let all = self.containers();
            if all.len() == count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {count} containers: {:?}", self.containers());
    }

    /// A folder of its own, for whoever wants one beside it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes an image, with the host's libraries for these programs of the host.
    pub fn import(&self, image: &str, programs: &[&Path]) {
        let root = self.dir.path().join(image.rsplit_once('/').unwrap().1);
        for folder in ["bin", "etc", "tmp", "proc", "dev", "sys", "run", "workspace", "var/tmp", "opt"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["tmp", "var/tmp"] {
            fs::set_permissions(root.join(folder), PermissionsExt::from_mode(0o1777)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static, from Debian's packages"), root.join("bin/busybox")).unwrap();
        let listed = Command::new(root.join("bin/busybox")).arg("--list").output().unwrap();
        for applet in String::from_utf8(listed.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/shells"), "/bin/sh\n").unwrap();
        fs::write(root.join("opt/of-the-image"), "there\n").unwrap();
        for program in programs {
            let listed = Command::new("ldd").arg(program).output().unwrap();
            let text = String::from_utf8(listed.stdout).unwrap();
            for file in text.split_whitespace().filter(|word| word.starts_with('/')).chain([program.to_str().unwrap()])
            {
                let inside = root.join(file.trim_start_matches('/'));
                fs::create_dir_all(inside.parent().unwrap()).unwrap();
                fs::copy(file, inside).unwrap();
            }
        }
        let archive = root.with_extension("tar");
        let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(packed.success());
        self.podman(&["import", archive.to_str().unwrap(), image]);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Even after a failed test; what cannot be cleaned up here is in a temporary folder.
        let _ = self.command(&["rm", "--force", "--all", "--time", "0"]).output();
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
        // What a container's monitor still cleans up mounts the storage again, so that ends first.
        for _ in 0..200 {
            let busy = self.is_named_by_a_process();
            for place in self.mounts() {
                let _ = Command::new("umount").arg("--lazy").arg(place).stderr(Stdio::null()).status();
            }
            if !busy && self.mounts().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Podman {
    fn is_named_by_a_process(&self) -> bool {
        let dir = self.dir.path().as_os_str().as_encoded_bytes();
        let names = |entry: fs::DirEntry| {
            let said = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            said.windows(dir.len()).any(|part| part == dir)
        };
        fs::read_dir("/proc").unwrap().flatten().any(names)
    }

    /// What is mounted below its folder, the deepest first.
    fn mounts(&self) -> Vec<PathBuf> {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let places = all.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        places.filter(|place| place.starts_with(self.dir.path())).collect()
    }
}
