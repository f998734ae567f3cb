//! The engine's API: six questions, over its socket. Docker's, which Podman speaks as well; where the two differ,
//! [`Kind`] says it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, SystemInfoCgroupVersionEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};

use crate::linux::Enforcement;

/// The label by which a server finds its own containers.
pub(super) const OWNER: &str = "bailiwick.owner";

/// How long the engine may take for an answer, in seconds.
const PATIENCE: u64 = 30;

/// The engine did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is nobody at the socket.
    #[error("does not answer at {0}")]
    Connect(PathBuf, #[source] Box<bollard::errors::Error>),
    /// The socket's path is no text.
    #[error("has a socket whose path is not UTF-8")]
    Path,
    /// It has no such image, and pulling one is the operator's act.
    #[error("has no image {0}: pull, load or build it first")]
    Image(String),
    /// An answer that is no success.
    #[error("could not {doing}")]
    Asked {
        /// What it was to do.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// An answer without what it must have.
    #[error("did not say {0}")]
    Silent(&'static str),
}

fn asked(doing: &'static str) -> impl FnOnce(bollard::errors::Error) -> EngineError {
    move |source| EngineError::Asked { doing, source: Box::new(source) }
}

/// Which engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Docker, or one that speaks as it does.
    Docker,
    /// Podman.
    Podman,
}

/// A way to ask the engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    kind: Kind,
    name: String,
}

/// What the engine says about itself.
pub(super) struct About {
    pub(super) rootless: bool,
    /// The runtime that it takes if none is named.
    pub(super) runtime: String,
    pub(super) groups: Enforcement,
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) cpu: bool,
}

/// What the engine says about a running container.
pub(super) struct Inspected {
    /// The first process's number on the host.
    pub(super) process: Option<i32>,
    pub(super) runtime: String,
    /// The names in the environment that the engine made.
    pub(super) environment: Vec<String>,
    /// How it ended, in words, if it did.
    pub(super) state: String,
}

impl Client {
    /// # Errors
    /// If nobody answers at this socket.
    pub(super) async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let path = socket.to_str().ok_or(EngineError::Path)?;
        let failed = |source| EngineError::Connect(socket.to_owned(), Box::new(source));
        let docker = Docker::connect_with_unix(path, PATIENCE, bollard::API_DEFAULT_VERSION).map_err(failed)?;
        let docker = docker.negotiate_version().await.map_err(failed)?;
        let version = docker.version().await.map_err(failed)?;
        let components = version.components.unwrap_or_default();
        let kind = if components.iter().any(|one| one.name.contains("Podman")) { Kind::Podman } else { Kind::Docker };
        let word = match kind {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
        };
        let name = format!("{word} {}", version.version.unwrap_or_default());
        Ok(Self { docker, kind, name })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn about(&self) -> Result<About, EngineError> {
        let info = self.docker.info().await.map_err(asked("tell about itself"))?;
        let options = info.security_options.unwrap_or_default();
        Ok(About {
            rootless: options.iter().any(|option| option.contains("name=rootless")),
            runtime: info.default_runtime.unwrap_or_default(),
            groups: match info.cgroup_version {
                Some(SystemInfoCgroupVersionEnum::_2) => Enforcement::CgroupV2,
                _ => Enforcement::CgroupV1,
            },
            memory: info.memory_limit == Some(true),
            pids: info.pids_limit == Some(true),
            cpu: info.cpu_cfs_quota == Some(true),
        })
    }

    /// The identity of an image that is there.
    pub(super) async fn image(&self, name: &str) -> Result<String, EngineError> {
        let image = self.docker.inspect_image(name).await.map_err(|error| match error {
            bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
                EngineError::Image(name.to_owned())
            }
            other => asked("find the image")(other),
        })?;
        image.id.ok_or(EngineError::Silent("which image it has"))
    }

    /// Makes a container; its number.
    pub(super) async fn create(&self, name: &str, recipe: ContainerCreateBody) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = self.docker.create_container(Some(options), recipe).await.map_err(asked("make the container"))?;
        Ok(made.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        let started = self.docker.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(asked("start the container"))
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<Inspected, EngineError> {
        let about = self.docker.inspect_container(id, None).await.map_err(asked("tell about the container"))?;
        let state = about.state.unwrap_or_default();
        let environment = about.config.and_then(|config| config.env).unwrap_or_default();
        let names = environment.iter().filter_map(|one| Some(one.split_once('=')?.0.to_owned()));
        Ok(Inspected {
            process: state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
            runtime: about.host_config.and_then(|config| config.runtime).unwrap_or_default(),
            // The engine's runtime looks for the user's home by itself.
            environment: names.chain(["HOME".to_owned(), "HOSTNAME".to_owned()]).collect(),
            state: format!("exit code {}: {}", state.exit_code.unwrap_or(-1), state.error.unwrap_or_default()),
        })
    }

    /// Removes a container, running or not. One that is gone is removed.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: the engine is at it already.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            other => other.map_err(asked("remove the container")),
        }
    }

    /// Removes all containers of an owner; how many there were.
    pub(super) async fn remove_all(&self, owner: &str) -> Result<usize, EngineError> {
        let filters = HashMap::from([("label", vec![format!("{OWNER}={owner}")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let all = self.docker.list_containers(Some(options)).await.map_err(asked("list the containers"))?;
        let ids: Vec<String> = all.into_iter().filter_map(|one| one.id).collect();
        for id in &ids {
            self.remove(id).await?;
        }
        Ok(ids.len())
    }
}
