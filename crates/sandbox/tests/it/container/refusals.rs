//! B08: an engine that cannot do what is asked is a clear error before the first command, never something weaker.

use bailiwick_sandbox::container::{ContainerSettings, ContainersUnavailable, EngineError, RuntimeChoice};
use bailiwick_sandbox::linux::{JailSpec, JailUser, StartError};

use super::engine::{BARE, Engine};

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_missing_engine_image_or_runtime_is_a_clear_error() {
    let engine = Engine::start();
    let settings = engine.settings();
    let nobody = ContainerSettings { socket: settings.socket.with_file_name("nobody.sock"), ..settings.clone() };
    let error = engine.detect(&nobody).await.err();
    assert!(matches!(error, Some(ContainersUnavailable::Engine(EngineError::Connect(..)))), "{error:?}");
    let unknown = ContainerSettings { image: "localhost/unknown".to_owned(), ..settings.clone() };
    let error = engine.detect(&unknown).await.err();
    assert!(matches!(error, Some(ContainersUnavailable::Engine(EngineError::Image(_)))), "{error:?}");
    // Podman would take its own runtime instead and not say so.
    let runsc = ContainerSettings { runtime: RuntimeChoice::Named("runsc".to_owned()), ..settings.clone() };
    let error = engine.detect(&runsc).await.err();
    assert!(matches!(&error, Some(ContainersUnavailable::Runtime { is, .. }) if is == "runc"), "{error:?}");
    let runc = ContainerSettings { runtime: RuntimeChoice::Named("runc".to_owned()), ..settings };
    assert!(engine.detect(&runc).await.is_ok());
    engine.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_container_runs_as_no_user_of_the_host() {
    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    for uid in [0, 1000] {
        let spec = JailSpec { user: JailUser { uid, gid: 200_001 }, ..engine.spec() };
        let refused = containers.start(spec).await;
        assert!(matches!(refused, Err(StartError::User(..))), "{:?}", refused.err());
    }
    engine.has(0).await;
}
