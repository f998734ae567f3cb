//! Refresh grants among the secrets, against a token endpoint that is strict: what goes out, who asks it and how
//! often, and what becomes of a grant that it refuses.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_auth::access::verb::{
    CallModel, DeleteSecret, GrantSecret, ListSecrets, ReadAccountAudit, RotateDataKey, SetSecret,
};
use bailiwick_auth::access::{During, record};
use bailiwick_auth::{Recorded, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::data_key::{Sealed, StoredKey};
use bailiwick_store::log::EventFilter;
use bailiwick_store::secret::{Change, Expect, Grant, SecretRow};
use bailiwick_testkit::token_endpoint::{Mood, SECRET, TokenEndpoint};
use bailiwick_tools::{Keeper, Withheld};
use bailiwick_types::{LeaseTerm, SecretKind, SecretName, UsedBy};
use bailiwick_vault::{RefreshGrant, SealedSecret, Vault, WrappedKey};
use futures::future::join_all;
use serde_json::{Map, Value};

use crate::SCRIPT;
use crate::fixture::{Inside, keeper, keeper_with, message, vault};

const HOST: &str = "api.example";

fn name() -> SecretName {
    "mail".parse().unwrap()
}

fn unlocked(vault: &Vault, scope: &Scope, there: Option<StoredKey>) -> bailiwick_vault::DataKey {
    match there {
        Some(StoredKey { by, bytes }) => vault.unlock(scope.tenant(), WrappedKey { by, bytes }).unwrap(),
        None => vault.new_key(scope.tenant()).unwrap(),
    }
}

fn stored(key: &bailiwick_vault::DataKey) -> StoredKey {
    StoredKey { by: key.wrapped().by.clone(), bytes: key.wrapped().bytes.clone() }
}

/// Sets the grant that the endpoint knows now, and lets the account's model use it.
async fn set(inside: &Inside, scope: &Scope, endpoint: &TokenEndpoint) {
    let (vault, text, of) = (vault(inside.dir.path()), endpoint.grant(), scope.clone());
    let sealing = move |there: Option<StoredKey>, version| {
        let key = unlocked(&vault, &of, there);
        let sealed = key.seal_grant(&name(), version, &RefreshGrant::parse(&text).unwrap()).unwrap();
        Ok((stored(&key), sealed.bytes))
    };
    let permit = scope.authorize::<SetSecret>(scope.account()).unwrap();
    let setting = inside.store.secret_set(permit, name(), SecretKind::OAuth, None, Expect::Either, Box::new(sealing));
    setting.await.unwrap();
    let permit = scope.authorize::<GrantSecret>(scope.account()).unwrap();
    let hosts = bailiwick_types::host::HostPattern::parse(HOST).unwrap();
    let grant = Grant { agent: "default".parse().unwrap(), used_by: UsedBy::Model, hosts, lease: LeaseTerm::Minute };
    inside.store.secret_grant(permit, name(), grant, Change::Give).await.unwrap();
}

async fn call(inside: &Inside, scope: &Scope) -> Recorded<CallModel> {
    let space = inside.store.space_personal(scope).await.unwrap();
    let id = inside.runtime.create(scope, space, "default".parse().unwrap(), None, Some(message("read it"))).await;
    let session = inside.store.session_find(scope, id.unwrap()).await.unwrap().unwrap();
    let permit = scope.authorize::<CallModel>(session).unwrap();
    record(&inside.store, permit, Map::new()).await.unwrap()
}

async fn released(keeper: &Keeper, call: &Recorded<CallModel>) -> Result<String, Withheld> {
    let released = keeper.for_model(call, name(), HOST.parse().unwrap()).await;
    released.map(|value| value.expose().to_owned())
}

async fn row(inside: &Inside, scope: &Scope) -> SecretRow {
    let permit = scope.authorize::<ListSecrets>(scope.account()).unwrap();
    inside.store.secret_list(permit).await.unwrap().remove(0)
}

/// The record's lines of an act, as text of verdicts and details.
async fn lines(inside: &Inside, scope: &Scope, action: &str) -> Vec<(String, Map<String, Value>)> {
    let permit = scope.authorize::<ReadAccountAudit>(scope.account()).unwrap();
    let filter = EventFilter { limit: 10_000, ..EventFilter::default() };
    let events = inside.store.event_list(permit, filter).await.unwrap();
    let of = events.into_iter().filter(|event| event.draft.action == action);
    let mut of: Vec<_> = of.collect();
    of.sort_by_key(|event| event.seq);
    of.into_iter().map(|event| (format!("{:?}", event.draft.verdict), event.draft.detail)).collect()
}

/// Whether a text is in any file beneath a folder.
fn written(folder: &std::path::Path, text: &str) -> bool {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if std::fs::read(entry.path()).unwrap().windows(text.len()).any(|part| part == text.as_bytes()) {
                return true;
            }
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_of_a_grant_the_access_token_goes_out_and_nothing_else_of_it_is_anywhere() {
    let (acmes, globexs) = (TokenEndpoint::start("acme", 3600).await, TokenEndpoint::start("globex", 3600).await);
    let inside = Inside::new(SCRIPT).await;
    let (alice, bob) = (inside.scope(&inside.alice).await, inside.scope(&inside.bob).await);
    let keeper = keeper_with(inside.dir.path(), &inside.store, vec![acmes.origin(), globexs.origin()]);
    let (hers, his) = (call(&inside, &alice).await, call(&inside, &bob).await);

    set(&inside, &alice, &acmes).await;
    assert_eq!(released(&keeper, &hers).await.unwrap(), "access-acme-1");
    // Kept, and not asked for again; the neighbour has nothing by it.
    assert_eq!(released(&keeper, &hers).await.unwrap(), "access-acme-1");
    assert!(matches!(released(&keeper, &his).await, Err(Withheld::Refused(_))));
    set(&inside, &bob, &globexs).await;
    assert_eq!(released(&keeper, &his).await.unwrap(), "access-globex-1");
    assert_eq!(released(&keeper, &hers).await.unwrap(), "access-acme-1");
    assert_eq!((acmes.asked(), globexs.asked()), (1, 1));
    assert_eq!((acmes.faults(), globexs.faults()), (vec![], vec![]));

    // On record: the refresh is begun before it is asked for, belongs to a release, and ends.
    let of = lines(&inside, &alice, "secret.refresh").await;
    assert_eq!(of.len(), 2, "{of:?}");
    assert_eq!((of[0].0.as_str(), &of[0].1["at"]), ("Begun", &"127.0.0.1".into()));
    assert_eq!((of[1].0.as_str(), &of[1].1["version"], &of[1].1["rotated"]), ("Ok", &2.into(), &true.into()));
    assert_eq!(lines(&inside, &alice, "secret.release").await.len(), 6);
    assert_eq!((row(&inside, &alice).await.version, row(&inside, &alice).await.kind), (2, SecretKind::OAuth));

    // Nothing of it lies in the clear, and a data key that is changed takes it along.
    let (vault, of) = (vault(inside.dir.path()), alice.clone());
    let permit = alice.authorize::<RotateDataKey>(alice.account()).unwrap();
    let resealing = move |key, values: Vec<Sealed>| {
        let (old, new) = (unlocked(&vault, &of, Some(key)), vault.new_key(of.tenant()).unwrap());
        let values = values.into_iter().map(|Sealed { of, version, bytes }| {
            let SealedSecret { of, version, bytes } = old.reseal(&new, &SealedSecret { of, version, bytes }).unwrap();
            Sealed { of, version, bytes }
        });
        let values = values.collect();
        Ok((stored(&new), values))
    };
    assert_eq!(inside.store.data_key_rotate(permit, Box::new(resealing)).await.unwrap(), 1);
    assert_eq!(released(&keeper, &hers).await.unwrap(), "access-acme-1");
    inside.store.close();
    // On PostgreSQL what is written lies elsewhere, and what is left here is still searched.
    let on_files = std::env::var(bailiwick_testkit::database::CHOICE).as_deref() != Ok("postgres");
    assert!(!on_files || written(inside.dir.path(), "acme"), "the control");
    for text in ["refresh-acme", "access-acme", "refresh-globex", SECRET] {
        assert!(!written(inside.dir.path(), text), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_many_who_need_a_token_ask_for_it_once_on_all_servers() {
    let endpoint = TokenEndpoint::start("acme", 1).await;
    let inside = Inside::new(SCRIPT).await;
    let alice = inside.scope(&inside.alice).await;
    let server = || keeper_with(inside.dir.path(), &inside.store, vec![endpoint.origin()]);
    let servers = [server(), server()];
    let call = call(&inside, &alice).await;
    set(&inside, &alice, &endpoint).await;
    for round in 1..4 {
        let wanted = format!("access-acme-{round}");
        // The token of before ends by itself, within its second.
        while round > 1 && released(&servers[0], &call).await.unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all = join_all((0..20).map(|n| released(&servers[n % 2], &call))).await;
        for token in all {
            // It may have ended meanwhile: then it is the one after.
            assert!(token.unwrap().starts_with("access-acme-"));
        }
        assert!(endpoint.is_good(), "{:?}", endpoint.faults());
        if round == 1 {
            assert_eq!(endpoint.asked(), 1);
        }
    }
    assert_eq!(endpoint.faults(), Vec::<String>::new());
    let refreshes = lines(&inside, &alice, "secret.refresh").await;
    assert_eq!(refreshes.iter().filter(|(verdict, _)| verdict == "Ok").count() as u64, endpoint.asked());

    // The control: a refresh token that comes again ends the grant.
    let old = endpoint.grant();
    while endpoint.grant() == old {
        released(&servers[0], &call).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let form = RefreshGrant::parse(&old).unwrap();
    assert!(endpoint.is_good());
    reuse(&inside, &alice, &form, &endpoint).await;
    assert!(!endpoint.is_good());
}

/// Sends a refresh token that was used.
async fn reuse(inside: &Inside, scope: &Scope, grant: &RefreshGrant, endpoint: &TokenEndpoint) {
    use bailiwick_auth::access::verb::RefreshSecret;
    use bailiwick_auth::authn::outbound::{Call, LedBy, Outbound as _};
    let call = call(inside, scope).await;
    let asked = inside.store.secret_use(
        scope,
        call.resource().clone(),
        name(),
        HOST.parse().unwrap(),
        (UsedBy::Model, During::Nothing),
    );
    let permit = scope.authorize::<RefreshSecret>(asked.await.unwrap()).unwrap();
    let act = record(&inside.store, permit, Map::new()).await.unwrap();
    let client = bailiwick_outbound::Lazy::new(bailiwick_outbound::Patience::default());
    let origin = endpoint.origin();
    let call = Call { url: grant.token_url(), led_by: LedBy::Configuration(&origin), form: Some(grant.request(&act)) };
    assert_eq!(client.call(call).await.ok().unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_a_grant_that_is_refused_is_shown_as_such_and_asked_for_no_more_until_it_is_set_again() {
    let endpoint = TokenEndpoint::start("acme", 3600).await;
    let inside = Inside::new(SCRIPT).await;
    let alice = inside.scope(&inside.alice).await;
    let keeper = keeper_with(inside.dir.path(), &inside.store, vec![endpoint.origin()]);
    let call = call(&inside, &alice).await;
    set(&inside, &alice, &endpoint).await;
    assert_eq!(row(&inside, &alice).await.set_again, None);
    endpoint.revoke();
    let refused = released(&keeper, &call).await.unwrap_err();
    assert!(matches!(refused, Withheld::Token(_)), "{refused:?}");
    for _ in 0..3 {
        let refused = released(&keeper, &call).await.unwrap_err();
        assert!(matches!(refused, Withheld::SetAgain), "{refused:?}");
        assert!(!format!("{refused}{refused:?}").contains("refresh-acme"));
    }
    assert_eq!(endpoint.asked(), 1, "nobody asks again");
    assert_eq!(row(&inside, &alice).await.set_again.as_deref(), Some("invalid_grant"));
    let of = lines(&inside, &alice, "secret.refresh").await;
    assert_eq!((of.len(), of[1].0.as_str(), &of[1].1["error"]), (2, "Fail", &"invalid_grant".into()));
    let of = lines(&inside, &alice, "secret.release").await;
    assert_eq!(of.last().unwrap().1["error"], "set_again");

    endpoint.renew();
    set(&inside, &alice, &endpoint).await;
    assert!(released(&keeper, &call).await.unwrap().starts_with("access-acme-"));
    assert_eq!(row(&inside, &alice).await.set_again, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_an_endpoint_that_fails_is_left_alone_for_a_while_and_its_words_go_nowhere() {
    let inside = Inside::new(SCRIPT).await;
    let alice = inside.scope(&inside.alice).await;
    let call = call(&inside, &alice).await;
    for (mood, error) in
        [(Mood::Status(503), "status"), (Mood::Status(429), "status"), (Mood::Nonsense, "answer_unusable")]
    {
        let endpoint = TokenEndpoint::start("acme", 3600).await;
        let keeper = keeper_with(inside.dir.path(), &inside.store, vec![endpoint.origin()]);
        set(&inside, &alice, &endpoint).await;
        endpoint.be(mood);
        let refused = released(&keeper, &call).await.unwrap_err();
        assert!(matches!(refused, Withheld::Token(_)), "{refused:?}");
        assert!(!format!("{refused}{refused:?}").contains("refresh-acme"));
        endpoint.be(Mood::Well);
        assert!(matches!(released(&keeper, &call).await, Err(Withheld::Later)));
        assert_eq!(endpoint.asked(), 1, "not so soon");
        assert_eq!(row(&inside, &alice).await.set_again, None);
        let of = lines(&inside, &alice, "secret.refresh").await;
        assert_eq!(of.last().unwrap().1["error"], error);
        // The control: set anew, it is asked at once.
        set(&inside, &alice, &endpoint).await;
        assert_eq!(released(&keeper, &call).await.unwrap(), "access-acme-1");
    }
    // Nobody is there.
    let endpoint = TokenEndpoint::start("acme", 3600).await;
    let keeper = keeper_with(inside.dir.path(), &inside.store, vec![endpoint.origin()]);
    set(&inside, &alice, &endpoint).await;
    drop(endpoint);
    let refused = released(&keeper, &call).await.unwrap_err();
    assert!(matches!(refused, Withheld::Endpoint(_)), "{refused:?}");
    let told = format!("{:?}", lines(&inside, &alice, "secret.refresh").await);
    assert!(
        told.contains("unreachable") && !told.contains("refresh-acme") && !told.contains("what you sent"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g08_a_token_endpoint_is_in_the_public_network_or_where_the_operator_says() {
    let endpoint = TokenEndpoint::start("acme", 3600).await;
    let inside = Inside::new(SCRIPT).await;
    let alice = inside.scope(&inside.alice).await;
    let call = call(&inside, &alice).await;
    let other = keeper_with(inside.dir.path(), &inside.store, vec!["http://127.0.0.1:1".to_owned()]);
    for keeper in [keeper(inside.dir.path(), &inside.store), other] {
        set(&inside, &alice, &endpoint).await;
        assert!(matches!(released(&keeper, &call).await, Err(Withheld::Endpoint(_))));
    }
    assert_eq!(endpoint.asked(), 0);
    let of = lines(&inside, &alice, "secret.refresh").await;
    assert_eq!(of.last().unwrap().1["error"], "not_https");
    // The control.
    set(&inside, &alice, &endpoint).await;
    let keeper = keeper_with(inside.dir.path(), &inside.store, vec![endpoint.origin()]);
    assert_eq!(released(&keeper, &call).await.unwrap(), "access-acme-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_what_comes_for_a_grant_that_was_set_anew_or_deleted_meanwhile_is_dropped() {
    let (old, new) = (TokenEndpoint::start("old", 3600).await, TokenEndpoint::start("new", 3600).await);
    let inside = Inside::new(SCRIPT).await;
    let alice = inside.scope(&inside.alice).await;
    let keeper = keeper_with(inside.dir.path(), &inside.store, vec![old.origin(), new.origin()]);
    let call = Arc::new(call(&inside, &alice).await);
    set(&inside, &alice, &old).await;
    let asking = |call: &Arc<Recorded<CallModel>>| {
        let (keeper, call) = (Arc::clone(&keeper), Arc::clone(call));
        tokio::spawn(async move { released(&keeper, &call).await })
    };
    let first = asking(&call);
    while old.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    set(&inside, &alice, &new).await;
    assert_eq!(first.await.unwrap().unwrap(), "access-new-1", "the old grant's token is nobody's");
    set(&inside, &alice, &old).await;
    let second = asking(&call);
    while old.asked() == 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let permit = alice.authorize::<DeleteSecret>(alice.account()).unwrap();
    inside.store.secret_delete(permit, name()).await.unwrap();
    let gone = second.await.unwrap().unwrap_err();
    assert!(matches!(gone, Withheld::Store(StoreError::NotFound { .. })), "{gone:?}");
}
