//! Two tenants with their people, and how a test comes to a scope: by a key, through the walk.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bailiwick_audit::{Event, Head, Problem};
use bailiwick_auth::access::verb::{
    CreateAccount, CreateSession, CreateSpace, CreateUser, GrantSpace, ReadAccountAudit, UseAgent,
};
use bailiwick_auth::access::{Session, Space, Verb};
use bailiwick_auth::authn::{Browser, Presented, Rejection, Step, Walk};
use bailiwick_auth::key::{KeyRing, PresentedKey};
use bailiwick_auth::{Permit, Principal, Scope};
use bailiwick_store::account::NewAccount;
use bailiwick_store::log::EventFilter;
use bailiwick_store::session::{Created, NewSession};
use bailiwick_store::{DatabaseUrl, Store, StoreError};
use bailiwick_types::{AccountName, AgentDefinition, GrantLevel, RequestId, Role, UserName};
use serde_json::json;

use crate::Backend;

/// What the operator of the tests holds.
pub(crate) const ROOT_KEY: &str = "the-root-key-of-the-tests-which-is-long-enough";

/// A user with a key in the clear.
pub(crate) struct Person {
    pub(crate) name: UserName,
    pub(crate) key: String,
}

/// A tenant with one user of each role.
pub(crate) struct House {
    pub(crate) account: AccountName,
    pub(crate) admin: Person,
    pub(crate) member: Person,
    pub(crate) viewer: Person,
}

pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) walk: Walk,
    pub(crate) acme: House,
    pub(crate) globex: House,
    pub(crate) backend: Backend,
    dir: tempfile::TempDir,
}

/// Opens the directory as a server would.
pub(crate) fn open(dir: &Path, backend: &Backend) -> Result<Store, StoreError> {
    let url = match backend {
        Backend::Sqlite => DatabaseUrl::Sqlite,
        Backend::Postgres(database) => database.url().parse().unwrap(),
    };
    Store::open(dir, &url)
}

impl Fixture {
    pub(crate) async fn new(backend: Backend) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &backend).unwrap();
        let walk = walk();
        let acme = house(&store, &walk, "acme").await;
        let globex = house(&store, &walk, "globex").await;
        Self { store, walk, acme, globex, backend, dir }
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the server and starts it again.
    pub(crate) fn restart(self) -> Self {
        self.restart_around(|| ())
    }

    /// Stops the server, does something to its directory, and starts it again.
    pub(crate) fn restart_around(self, meanwhile: impl FnOnce()) -> Self {
        let Self { store, walk, acme, globex, backend, dir } = self;
        store.close();
        drop(store);
        meanwhile();
        let store = open(dir.path(), &backend).unwrap();
        Self { store, walk, acme, globex, backend, dir }
    }

    /// Lets go of the store without closing it, and opens the directory at once.
    pub(crate) fn drop_and_reopen(self) -> Self {
        let Self { store, walk, acme, globex, backend, dir } = self;
        drop(store);
        let store = open(dir.path(), &backend).unwrap();
        Self { store, walk, acme, globex, backend, dir }
    }

    pub(crate) async fn login(&self, key: &str) -> Result<Principal, Rejection> {
        login(&self.store, &self.walk, key).await
    }

    pub(crate) async fn operator(&self) -> Principal {
        self.login(ROOT_KEY).await.unwrap()
    }

    pub(crate) async fn scope(&self, person: &Person) -> Scope {
        self.login(&person.key).await.unwrap().scope(RequestId::new()).unwrap()
    }

    /// The operator's scope for setting up an account.
    pub(crate) async fn set_up(&self, house: &House) -> Scope {
        let tenant = self.scope(&house.admin).await.tenant().clone();
        self.operator().await.scope_in(&tenant, RequestId::new()).unwrap()
    }

    /// A space of that person's.
    pub(crate) async fn space(&self, owner: &Person, name: &str) -> Space {
        let scope = self.scope(owner).await;
        let create = permit::<CreateSpace>(&scope, scope.account());
        let row = self.store.space_create(create, name.into(), String::new()).await.unwrap();
        self.store.space_find(&scope, row.id).await.unwrap().unwrap()
    }

    pub(crate) async fn grant(&self, owner: &Person, space: &Space, to: &Person, level: Option<GrantLevel>) {
        let scope = self.scope(owner).await;
        let space = self.store.space_find(&scope, space.id()).await.unwrap().unwrap();
        self.store.grant_set(permit::<GrantSpace>(&scope, space), to.name.clone(), level).await.unwrap();
    }

    pub(crate) async fn session_in(
        &self,
        scope: &Scope,
        space: &Space,
        new: NewSession,
    ) -> Result<Created, StoreError> {
        let (space, agent) = self.session_permits(scope, space);
        self.store.session_create(space, agent, new).await
    }

    pub(crate) fn session_permits(&self, scope: &Scope, space: &Space) -> (Permit<CreateSession>, Permit<UseAgent>) {
        let agent = scope.agent_named("helper".parse().unwrap());
        (permit(scope, space.clone()), permit(scope, agent))
    }

    /// A session of that person's in a new space.
    pub(crate) async fn session(&self, person: &Person) -> Session {
        let space = self.space(person, "work").await;
        let scope = self.scope(person).await;
        self.session_in(&scope, &space, NewSession { operation: None, first: None }).await.unwrap().session
    }

    /// Everything on record in an account, oldest first.
    pub(crate) async fn events(&self, house: &House) -> Vec<Event> {
        let scope = self.scope(&house.admin).await;
        let filter = EventFilter { limit: 1_000_000, ..EventFilter::default() };
        self.store.event_list(permit::<ReadAccountAudit>(&scope, scope.account()), filter).await.unwrap()
    }

    /// The actions on record, oldest first.
    pub(crate) async fn actions(&self, house: &House) -> Vec<String> {
        self.events(house).await.into_iter().map(|event| event.draft.action).collect()
    }

    pub(crate) async fn verify(&self, house: &House) -> Result<Head, Problem> {
        let scope = self.scope(&house.admin).await;
        let verified = self.store.event_verify(permit::<ReadAccountAudit>(&scope, scope.account())).await.unwrap();
        verified.map(|verified| verified.head)
    }
}

/// The permit for a verb on a resource that the scope certainly has.
pub(crate) fn permit<V: Verb>(scope: &Scope, resource: V::Resource) -> Permit<V> {
    match scope.authorize::<V>(resource) {
        Ok(permit) => permit,
        Err(refusal) => panic!("{} was refused: {refusal}", V::NAME),
    }
}

/// The code of a conflict; anything else fails the test.
pub(crate) fn conflict<T>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::Conflict { code, .. }) => code,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it was done"),
    }
}

/// The kind of thing that was not found; anything else fails the test.
pub(crate) fn not_found<T>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::NotFound { kind, .. }) => kind,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it was found"),
    }
}

pub(crate) fn walk() -> Walk {
    Walk::new(vec![Step::ApiKey], KeyRing::new([7; 32]), Some(ROOT_KEY))
}

pub(crate) async fn login(store: &Store, walk: &Walk, key: &str) -> Result<Principal, Rejection> {
    let shown = Presented {
        path: "/".to_owned(),
        key: Some(PresentedKey::new(key)),
        account: None,
        user: None,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        basic: None,
        gateway: bailiwick_auth::authn::Gateway::Anybody,
        browser: Browser::Own,
    };
    walk.authenticate(store, &shown).await
}

pub(crate) fn definition() -> AgentDefinition {
    serde_json::from_value(json!({ "tools": ["bash", "read_file"], "require_approval": ["bash"] })).unwrap()
}

/// Creates an account with its first admin and the agent `helper`, as the operator.
pub(crate) async fn account(store: &Store, walk: &Walk, name: &str) -> Result<Person, StoreError> {
    let operator = login(store, walk, ROOT_KEY).await.unwrap().host_scope(RequestId::new());
    let key = walk.ring().make().unwrap();
    let admin: UserName = "alice".parse().unwrap();
    let new = NewAccount {
        name: name.parse().unwrap(),
        admin: Some((admin.clone(), &key)),
        agents: vec![("helper".parse().unwrap(), definition())],
    };
    store.account_create(operator.authorize::<CreateAccount>().unwrap(), new).await?;
    Ok(Person { name: admin, key: key.into_text().to_string() })
}

/// Creates a user, as an admin of the account.
pub(crate) async fn user(
    store: &Store,
    walk: &Walk,
    admin: &Person,
    name: &str,
    role: Role,
) -> Result<Person, StoreError> {
    let scope = login(store, walk, &admin.key).await.unwrap().scope(RequestId::new()).unwrap();
    let key = walk.ring().make().unwrap();
    let name: UserName = name.parse().unwrap();
    store.user_create(permit::<CreateUser>(&scope, scope.account()), name.clone(), role, &key, None).await?;
    Ok(Person { name, key: key.into_text().to_string() })
}

async fn house(store: &Store, walk: &Walk, name: &str) -> House {
    let admin = account(store, walk, name).await.unwrap();
    let member = user(store, walk, &admin, "bob", Role::Member).await.unwrap();
    let viewer = user(store, walk, &admin, "vera", Role::Viewer).await.unwrap();
    House { account: name.parse().unwrap(), admin, member, viewer }
}
