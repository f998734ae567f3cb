//! The probe of `attack` as a program of its own, and a server that tests can kill or weaken.
//!
//! For this crate's tests; the server's executable plays the probe itself.
#![allow(clippy::print_stdout)]

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((group, rest)) if group == "server" => server::run(rest),
        Some((group, rest)) if group == "detect" => server::detect(rest),
        Some((group, rest)) if group == "containers" => server::containers(rest),
        _ => bailiwick_sandbox::attack::probe::run(&arguments),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

/// A server in a process of its own, which a test can kill or weaken.
#[cfg(target_os = "linux")]
mod server {
    use std::path::PathBuf;

    use bailiwick_sandbox::container::{ContainerSettings, Containers, RuntimeChoice};
    use bailiwick_sandbox::linux::{
        CgroupUse, Exec, HelperPath, JailName, JailSpec, JailUser, Launcher, Limits, Network, WorkspaceAccess,
    };
    use tokio_util::sync::CancellationToken;

    /// Arguments: helper, workspace, user id. Prints the number of the first
    /// process once a command runs, then never ends.
    pub(super) fn run(arguments: &[String]) {
        let [helper, workspace, id] = arguments else {
            return;
        };
        let (Ok(id), Ok(runtime)) = (id.parse(), tokio::runtime::Runtime::new()) else {
            return;
        };
        runtime.block_on(async {
            let helper = HelperPath::At(PathBuf::from(helper));
            let launcher = Launcher::detect(helper, CgroupUse::WherePossible).await;
            let Ok(launcher) = launcher else {
                return println!("{:?}", launcher.err());
            };
            let Ok(name) = JailName::parse(&format!("victim-{}", std::process::id())) else {
                return;
            };
            let spec = JailSpec {
                name,
                workspace: PathBuf::from(workspace),
                access: WorkspaceAccess::ReadWrite,
                shared_tmp: None,
                user: JailUser { uid: id, gid: id },
                network: Network::Nothing,
                limits: Limits::default(),
            };
            let Ok(jail) = launcher.start(spec).await else {
                return;
            };
            let first = jail.receipt().process;
            let script = "setsid sleep 1000 & sleep 1000 & wait";
            let command = jail.exec(Exec::shell(script), CancellationToken::new());
            let ready = async {
                let look = "until grep -q sleep /proc/[0-9]*/comm; do sleep 0.01; done";
                let _ = jail.exec(Exec::shell(look), CancellationToken::new()).await;
                println!("ready={first}");
            };
            let _ = tokio::join!(command, ready);
        });
    }

    /// Arguments: helper, the engine's socket, the server's folder, workspace, image, user id. As [`run`], with a
    /// container.
    pub(super) fn containers(arguments: &[String]) {
        let [helper, socket, folder, workspace, image, id] = arguments else { return };
        let (Ok(id), Ok(runtime)) = (id.parse(), tokio::runtime::Runtime::new()) else { return };
        let settings = ContainerSettings {
            socket: PathBuf::from(socket),
            image: image.clone(),
            runtime: RuntimeChoice::Engines,
            folder: PathBuf::from(folder),
        };
        runtime.block_on(async {
            let containers = Containers::detect(&HelperPath::At(PathBuf::from(helper)), &settings).await;
            let Ok(containers) = containers else {
                return println!("{:?}", containers.err());
            };
            let Ok(name) = JailName::parse(&format!("victim-{}", std::process::id())) else { return };
            let spec = JailSpec {
                name,
                workspace: PathBuf::from(workspace),
                access: WorkspaceAccess::ReadWrite,
                shared_tmp: None,
                user: JailUser { uid: id, gid: id },
                network: Network::Nothing,
                limits: Limits::default(),
            };
            let container = match containers.start(spec).await {
                Ok(container) => container,
                Err(error) => return println!("{error:?}"),
            };
            println!("ready={}", container.receipt().process);
            let _ = container.exec(Exec::shell("sleep 1000"), CancellationToken::new()).await;
        });
    }

    /// Argument: helper. Prints what detection says.
    pub(super) fn detect(arguments: &[String]) {
        let [helper] = arguments else { return };
        let Ok(runtime) = tokio::runtime::Runtime::new() else {
            return;
        };
        let helper = HelperPath::At(PathBuf::from(helper));
        match runtime.block_on(Launcher::detect(helper, CgroupUse::WherePossible)) {
            Ok(launcher) => println!("detect={:?}", launcher.promises().launcher),
            Err(error) => println!("detect={error}"),
        }
    }
}
