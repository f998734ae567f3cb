//! Agents: every change is a version, and a session keeps the one that it began with.

use bailiwick_auth::access::verb::{DeleteAgent, ListAgents, PutAgent, ReadAgent};
use bailiwick_store::session::NewSession;
use bailiwick_types::AgentDefinition;

use crate::fixture::{Fixture, Person, definition, not_found, permit};
use crate::on_every_backend;

async fn put(f: &Fixture, by: &Person, name: &str, definition: AgentDefinition) -> u64 {
    let scope = f.scope(by).await;
    let permit = permit::<PutAgent>(&scope, scope.account());
    f.store.agent_put(permit, name.parse().unwrap(), definition).await.unwrap()
}

fn says(text: &str) -> AgentDefinition {
    AgentDefinition { instructions: text.to_owned(), ..definition() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_adds_a_version_and_the_same_words_add_none() {
    on_every_backend(async |f| {
        let admin = &f.acme.admin;
        assert_eq!(put(&f, admin, "writer", says("one")).await, 1);
        assert_eq!(put(&f, admin, "writer", says("one")).await, 1);
        assert_eq!(put(&f, admin, "writer", says("two")).await, 2);
        let scope = f.scope(admin).await;
        let read = permit::<ReadAgent>(&scope, scope.agent_named("writer".parse().unwrap()));
        let row = f.store.agent_read(read).await.unwrap();
        assert_eq!((row.version, row.definition.instructions.as_str()), (2, "two"));
        let other = f.scope(&f.globex.admin).await;
        let read = permit::<ReadAgent>(&other, other.agent_named("writer".parse().unwrap()));
        assert_eq!(not_found(f.store.agent_read(read).await), "agent", "another tenant has none of that name");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_the_version_that_it_began_with_even_when_the_agent_is_deleted() {
    on_every_backend(async |f| {
        let (admin, bob) = (&f.acme.admin, &f.acme.member);
        let session = f.session(bob).await;
        assert_eq!(put(&f, admin, "helper", says("changed")).await, 2);
        let scope = f.scope(bob).await;
        let new = f.session_in(&scope, session.space(), NewSession { operation: None, first: None }).await.unwrap();
        let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
        assert_eq!(f.store.turn_standing(&lease).await.unwrap().agent.version, 1);
        let lease = f.store.turn_lease(scope.tenant(), new.session.id()).await.unwrap();
        assert_eq!(f.store.turn_standing(&lease).await.unwrap().agent.version, 2);

        let by = f.scope(admin).await;
        let delete = permit::<DeleteAgent>(&by, by.agent_named("helper".parse().unwrap()));
        f.store.agent_delete(delete).await.unwrap();
        let late = f.session_in(&scope, session.space(), NewSession { operation: None, first: None }).await;
        assert_eq!(not_found(late), "agent");
        assert_eq!(f.store.turn_standing(&lease).await.unwrap().agent.definition.instructions, "changed");
        assert!(f.store.agent_list(permit::<ListAgents>(&by, by.account())).await.unwrap().is_empty());
        assert_eq!(put(&f, admin, "helper", says("back")).await, 3, "a number is never given twice");
        assert_eq!(f.store.agent_list(permit::<ListAgents>(&by, by.account())).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e01_agents_of_a_folder_are_brought_in_on_record_and_only_when_they_changed() {
    on_every_backend(async |f| {
        let name = f.acme.account.clone();
        let folder = |text: &str| vec![("folder".parse().unwrap(), says(text))];
        for text in ["one", "one", "two"] {
            f.store.agent_sync(&name, folder(text)).await.unwrap();
        }
        let puts: Vec<_> =
            f.events(&f.acme).await.into_iter().filter(|event| event.draft.action == "agent.put").collect();
        assert_eq!(puts.len(), 2);
        assert!(puts.iter().all(|event| event.draft.actor.to_text() == "service:startup"));
        assert_eq!(not_found(f.store.agent_sync(&"initech".parse().unwrap(), folder("x")).await), "account");
    })
    .await;
}
