//! Every mistake is reported, with its place, before a port is bound.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Home, ROOT_KEY};

#[test]
fn every_mistake_is_reported_with_its_place_and_exit_64() {
    let home = Home::new();
    let text = "[server]\n\
                listen = \"nowhere\"\n\
                lisen = \"127.0.0.1:1\"\n\
                root_api_key_file = \"missing.key\"\n\
                [auth]\n\
                walk = [\"api_key\", \"jwt:sso\", \"magic\"]\n\
                [sandbox]\n\
                pids = \"many\"\n\
                memory_mib = 0\n\
                [model.default]\n\
                provider = \"anthropic\"\n\
                temprature = 1\n\
                [relay]\n\
                listen = \"127.0.0.1:2\"\n";
    home.write("bailiwick.toml", text, 0o600);
    let mut command = home.command(&["serve", "-c", "bailiwick.toml"]);
    command.env("BAILIWICK_SERVER__PUBLIC_URL", "not a url").env("BAILIWICK_NO__SUCH", "1");
    let done: crate::support::Done = command.output().unwrap().into();
    let said = done.failed(
        64,
        &[
            "bailiwick.toml:2: server.listen:",
            "bailiwick.toml:3: server.lisen: unknown key",
            "bailiwick.toml:4: server.root_api_key_file: missing.key cannot be read",
            "auth.walk: `jwt:sso` needs a section [auth.jwt.sso]",
            "auth.walk: there is no authenticator `magic`",
            "bailiwick.toml:8: sandbox.pids:",
            "bailiwick.toml:9: sandbox.memory_mib: must be more than zero",
            "bailiwick.toml:11: model.default.model: name the model",
            "bailiwick.toml:11: model.default: has no key",
            "bailiwick.toml:12: model.default.temprature: unknown key",
            "relay.listen: not supported in this version",
            "environment BAILIWICK_SERVER__PUBLIC_URL: server.public_url:",
            "environment BAILIWICK_NO__SUCH: no.such:",
            "mistakes:",
        ],
    );
    assert!(!said.contains("listening"), "{said}");
    assert!(!home.path(".local").exists(), "nothing was made");
}

#[test]
fn a_file_that_is_no_toml_is_an_error_with_its_line() {
    let home = Home::new();
    home.write("bad.toml", "[server]\nlisten = \n", 0o600);
    home.run(&["serve", "-c", "bad.toml"]).failed(64, &["bad.toml:2"]);
    home.run(&["serve", "-c", "absent.toml"]).failed(64, &["absent.toml: cannot be read"]);
}

#[test]
fn u06_a_secret_that_others_can_read_is_refused() {
    let home = Home::new();
    let key = home.write("root.key", ROOT_KEY, 0o644);
    let text = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n";
    home.write("bailiwick.toml", text, 0o644);
    home.run(&["serve"]).failed(64, &["root.key can be read by others (mode 0644)", "chmod 600"]);
    // The same file, private: it starts. So does a wide configuration that holds no secret itself.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    drop(home.start(&["serve"]));

    let inline = format!("[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data2\"\nroot_api_key = \"{ROOT_KEY}\"\n");
    home.write("inline.toml", &inline, 0o640);
    home.run(&["serve", "-c", "inline.toml"]).failed(64, &["inline.toml can be read by others (mode 0640)"]);
    home.write("inline.toml", &inline, 0o600);
    drop(home.start(&["serve", "-c", "inline.toml"]));
}

#[test]
fn a10_dev_mode_on_a_public_address_refuses_to_start() {
    let home = Home::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.7:17880"] {
        let said = home.run(&["up", "--data", "data", "--listen", address]).failed(64, &["server.listen", "dev mode"]);
        assert!(!said.contains("listening"), "{said}");
    }
    let mut command = home.command(&["serve", "--listen", "0.0.0.0:0", "--data", "data"]);
    let done: crate::support::Done = command.env("BAILIWICK_AUTH__MODE", "dev").output().unwrap().into();
    done.failed(64, &["dev mode"]);
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
    command.env("BAILIWICK_SERVER__ROOT_API_KEY", ROOT_KEY).env("BAILIWICK_AUTH__WALK", "api_key,local_dev");
    let done: crate::support::Done = command.output().unwrap().into();
    done.failed(64, &["`local_dev` is for auth.mode = \"dev\" alone"]);
    // The positive controls: dev mode on loopback, and keys on a public address.
    drop(home.start(&["up", "--data", "data", "--listen", "127.0.0.1:0"]));
    home.write("root.key", ROOT_KEY, 0o600);
    let public = "[server]\nlisten = \"0.0.0.0:0\"\ndata_dir = \"data2\"\nroot_api_key_file = \"root.key\"\n";
    home.write("public.toml", public, 0o600);
    drop(home.start(&["serve", "-c", "public.toml"]));
}

#[test]
fn without_a_root_key_production_does_not_start() {
    let home = Home::new();
    home.run(&["serve", "--data", "data"]).failed(64, &["root_api_key_file: missing", "bailiwick init"]);
}

#[test]
fn what_this_version_does_not_do_is_refused_and_not_ignored() {
    let home = Home::new();
    let text = "[database]\nurl = \"mysql://db/x\"\n[objects]\nurl = \"s3://x\"\n\
                [auth]\nmode = \"trusted\"\n[relay]\nlisten = \"x\"\n[limits]\nstorage_mib = 5\n";
    home.write("bailiwick.toml", text, 0o600);
    let keys = ["database.url", "objects.url", "server.trusted_proxies", "relay.listen", "limits"];
    let mut command = home.command(&["serve"]);
    let done: crate::support::Done = command.env("BAILIWICK_ADMIN_PASSWORD", "hunter22").output().unwrap().into();
    let said = done.failed(64, &keys);
    assert!(said.matches("not supported in this version").count() >= 2, "{said}");
    assert!(said.contains("BAILIWICK_ADMIN_USERNAME and BAILIWICK_ADMIN_PASSWORD belong together"), "{said}");
    assert!(!said.contains("hunter22"), "{said}");
}

#[test]
fn e05_how_the_record_is_kept_is_checked_before_anything_starts() {
    let home = Home::new();
    home.write("root.key", ROOT_KEY, 0o600);
    let server = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n";
    let record = "[audit]\ncheckpoint_seconds = 0\nretention_days = 1\nleast_age_hours = 25\n";
    home.write("bailiwick.toml", &format!("{server}name = \"two words\"\n{record}"), 0o600);
    let keys = ["server.name", "audit.checkpoint_seconds", "audit.retention_days"];
    home.run(&["serve"]).failed(64, &keys);
    assert!(!home.path("data").exists());
    // The control, with a folder of its own for the checkpoints.
    let record = "[audit]\nretention_days = 1\ncheckpoint_dir = \"elsewhere\"\n";
    home.write("bailiwick.toml", &format!("{server}name = \"one.example\"\n{record}"), 0o600);
    assert_eq!(home.start(&["serve"]).end("-TERM"), Some(0));
    let kept = std::fs::read_to_string(home.path("elsewhere/host.txt")).unwrap();
    assert!(kept.starts_with("one.example/host\n"), "{kept}");
    assert!(!home.path("data/checkpoints").exists());
}

#[test]
fn the_order_is_defaults_file_environment_flags_and_secrets_are_masked() {
    let home = Home::new();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:1\"\nname = \"file\"\nroot_api_key = \"{ROOT_KEY}\"\n[sandbox]\npids = 7\n"
    );
    home.write("bailiwick.toml", &text, 0o600);
    let mut command = home.command(&["config", "print"]);
    command.env("BAILIWICK_SERVER__LISTEN", "127.0.0.1:2").env("BAILIWICK_SANDBOX__CPU", "0.5");
    let done: crate::support::Done = command.output().unwrap().into();
    let said = done.good();
    for line in ["server.listen = \"127.0.0.1:2\"", "server.name = \"file\"", "sandbox.pids = 7", "sandbox.cpu = 0.5"] {
        assert!(said.contains(line), "{line} is not in: {said}");
    }
    assert!(said.contains("# environment BAILIWICK_SERVER__LISTEN"), "{said}");
    assert!(said.contains("root_api_key = \"********\"") && !said.contains(ROOT_KEY), "{said}");
    // The flag wins over all.
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0x"]);
    let done: crate::support::Done = command.env("BAILIWICK_SERVER__LISTEN", "127.0.0.1:2").output().unwrap().into();
    done.failed(64, &["flag --listen: server.listen: not an address with a port: 127.0.0.1:0x"]);
}

#[test]
fn the_defaults_are_whole_and_commented() {
    let home = Home::new();
    let text = home.run(&["config", "print", "--defaults"]).good();
    assert!(text.contains("listen = \"127.0.0.1:17880\""));
    let said = home.run(&["config", "print", "--json"]).json();
    assert_eq!(said["server.listen"]["value"], "127.0.0.1:17880");
}

#[test]
fn agents_as_files_are_checked_before_anything_starts() {
    let home = Home::new();
    home.run(&["init", "site"]).good();
    home.run(&["init", "site"]).failed(1, &["is there already"]);
    drop(home.start(&["serve", "-c", "site/bailiwick.toml", "--listen", "127.0.0.1:0"]));
    assert_eq!(std::fs::metadata(home.path("site/root.key")).unwrap().permissions().mode() & 0o777, 0o600);
    home.run(&["agent", "check", "site/agents"]).good();
    home.write("site/agents/bad/AGENT.md", "---js\nmodule.exports = {}\n---\n", 0o644);
    home.write("site/agents/worse/AGENT.md", "---\ntools: [no_such_tool]\n---\n", 0o644);
    home.run(&["agent", "check", "site/agents"]).failed(1, &["bad/AGENT.md", "worse/AGENT.md"]);
    let t14 = home.run(&["serve", "-c", "site/bailiwick.toml", "--listen", "127.0.0.1:0"]);
    t14.failed(64, &["bad/AGENT.md", "only YAML", "worse/AGENT.md", "no_such_tool"]);
}

#[test]
fn usage_is_exit_2_and_every_command_has_an_example() {
    let home = Home::new();
    assert_eq!(home.run(&["no-such-command"]).code, 2);
    assert_eq!(home.run(&["space", "delete", "spc_1"]).code, 2);
    for command in ["up", "serve", "demo", "init", "doctor", "chat"] {
        let text = home.run(&[command, "--help"]).good();
        assert!(text.contains("Example:"), "{command}");
    }
    for group in ["config", "account", "user", "key", "agent", "space", "session", "approval", "audit", "policy"] {
        let text = home.run(&[group, "--help"]).good();
        let commands = text.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap().to_owned();
        let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            let text = home.run(&[group, name, "--help"]).good();
            assert!(text.contains("Example:"), "{group} {name}");
        }
    }
}

#[test]
fn a03_a_list_of_addresses_that_cannot_be_read_is_never_a_list_without_them() {
    let home = Home::new();
    home.write("root.key", ROOT_KEY, 0o600);
    let with = |line: &str| {
        format!("[server]\nlisten = \"127.0.0.1:0\"\nroot_api_key_file = \"root.key\"\ndata_dir = \"data\"\n{line}\n")
    };
    for list in ["ip_allow", "trusted_proxies"] {
        for odd in ["10.9.9.0/+8", "::ffff:10.9.9.0/24", "10.9.9.0/33", "office"] {
            home.write("bailiwick.toml", &with(&format!("{list} = [\"{odd}\"]")), 0o600);
            let key = format!("server.{list}: {odd}: not an address");
            home.run(&["serve", "-c", "bailiwick.toml"]).failed(64, &["bailiwick.toml:5", &key]);
        }
    }
    // Control: a list that can be read holds, and shuts this machine out.
    home.write("bailiwick.toml", &with("ip_allow = [\"10.9.9.0/8\"]"), 0o600);
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    server.client(&home, ROOT_KEY, &["account", "list"]).failed(1, &["from this address are not accepted"]);
}

#[test]
fn i12_what_stands_behind_a_proxy_is_not_in_dev_mode_and_has_a_long_key() {
    let home = Home::new();
    for behind in ["public_url = \"https://bailiwick.example.com\"", "trusted_proxies = [\"127.0.0.1\"]"] {
        home.write("bailiwick.toml", &format!("[server]\n{behind}\n[auth]\nmode = \"dev\"\n"), 0o600);
        home.run(&["serve", "-c", "bailiwick.toml"]).failed(64, &["auth.mode: \"dev\" lets every caller"]);
    }
    home.write("bailiwick.toml", "[server]\nroot_api_key = \"short\"\n", 0o600);
    home.run(&["serve", "-c", "bailiwick.toml"]).failed(64, &["server.root_api_key: has 5 characters"]);
}

#[test]
fn i12_an_issuer_starts_with_a_key_that_fits_and_every_other_is_told() {
    let home = Home::new();
    home.write("root.key", ROOT_KEY, 0o600);
    home.write("sso.key", "a secret that is long enough for it", 0o600);
    home.write("wide.key", "a secret that is long enough for it", 0o644);
    home.write("junk.pem", "no key", 0o644);
    let server = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n\
                  [auth]\nwalk = [\"api_key\", \"session\", \"jwt:sso\"]\n";
    let issuer = |name: &str, more: &str| {
        format!("[auth.jwt.{name}]\nissuer = \"https://sso.example\"\naudiences = [\"bailiwick\"]\n{more}\n")
    };
    let good = issuer("sso", "algorithm = \"HS256\"\nsecret_file = \"sso.key\"\naccount = \"default\"");
    home.write("good.toml", &format!("{server}{good}"), 0o600);
    drop(home.start(&["serve", "-c", "good.toml"]));
    for (more, told) in [
        ("algorithm = \"none\"\nsecret_file = \"sso.key\"\naccount = \"default\"", "algorithm: use HS256"),
        ("algorithm = \"HS512\"\nsecret_file = \"sso.key\"\naccount = \"default\"", "too short"),
        ("algorithm = \"HS256\"\nsecret_file = \"wide.key\"\naccount = \"default\"", "can be read by others"),
        ("algorithm = \"ES256\"\npublic_key_file = \"junk.pem\"\naccount = \"default\"", "cannot be read"),
        ("algorithm = \"HS256\"\nsecret_file = \"sso.key\"", "either account or account_claim"),
        ("algorithm = \"HS256\"\naccount = \"default\"", "either secret_file or public_key_file or jwks_url"),
        ("jwks_url = \"https://sso.example/keys\"\naccount = \"default\"", "algorithm: use HS256"),
        ("algorithm = \"HS256\"\njwks_url = \"https://sso.example/keys\"\naccount = \"default\"", "another kind"),
        ("algorithm = \"RS256\"\njwks_url = \"http://sso.example/keys\"\naccount = \"default\"", "must be https"),
        ("algorithm = \"RS256\"\njwks_url = \"sso.example\"\naccount = \"default\"", "not a URL"),
    ] {
        home.write("bad.toml", &format!("{server}{}", issuer("sso", more)), 0o600);
        home.run(&["serve", "-c", "bad.toml"]).failed(64, &["auth.jwt.sso", told]);
    }
}

#[test]
fn i12_an_openid_provider_is_looked_at_before_the_start_and_need_not_be_there() {
    let home = Home::new();
    home.write("root.key", "root-key-of-the-configuration-tests", 0o600);
    home.write("client.key", "client secret", 0o600);
    home.write("wide.key", "client secret", 0o644);
    let server = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n";
    let public = "public_url = \"https://bailiwick.example\"\n";
    let walk = "[auth]\nwalk = [\"api_key\", \"session\", \"oidc:sso\"]\n[auth.oidc.sso]\n";
    // Nobody listens there.
    let good = "issuer = \"http://127.0.0.1:9\"\naudiences = [\"bailiwick\"]\naccount = \"default\"\n\
                client_id = \"bailiwick\"\nclient_secret_file = \"client.key\"\ntitle = \"Example\"\n\
                second_factor = \"provider\"\nscopes = [\"openid\", \"profile\"]\n";
    home.write("good.toml", &format!("{server}{public}{walk}{good}"), 0o600);
    drop(home.start(&["serve", "-c", "good.toml"]));
    home.write("bad.toml", &format!("{server}{walk}{good}"), 0o600);
    home.run(&["serve", "-c", "bad.toml"]).failed(64, &["server.public_url", "/login/oidc/sso/callback"]);
    let named = format!("{server}{public}{walk}{good}").replace("oidc:sso", "oidc:SSO").replace("oidc.sso", "oidc.SSO");
    home.write("bad.toml", &named, 0o600);
    home.run(&["serve", "-c", "bad.toml"]).failed(64, &["auth.oidc.SSO: its name is part of addresses"]);
    home.write("bad.toml", &format!("{server}{}", walk.replace("[auth.oidc.sso]\n", "")), 0o600);
    home.run(&["serve", "-c", "bad.toml"]).failed(64, &["`oidc:sso` needs a section [auth.oidc.sso]"]);
    // A client with a secret is who its tokens are for; one without says so itself.
    let silent = good.replace("audiences = [\"bailiwick\"]\n", "");
    home.write("good.toml", &format!("{server}{public}{walk}{silent}"), 0o600);
    drop(home.start(&["serve", "-c", "good.toml"]));
    let public_client = silent.replace("client_secret_file = \"client.key\"\n", "");
    home.write("bad.toml", &format!("{server}{public}{walk}{public_client}"), 0o600);
    home.run(&["serve", "-c", "bad.toml"]).failed(64, &["auth.oidc.sso.audiences", "must not pass"]);
    for (from, to, told) in [
        ("issuer = \"http://127.0.0.1:9\"", "issuer = \"http://sso.example\"", "issuer: must be https"),
        ("issuer = \"http://127.0.0.1:9\"", "issuer = \"https://a:b@sso.example\"", "issuer: holds a credential"),
        ("issuer = \"http://127.0.0.1:9\"", "issuer = \"https://sso.example?x\"", "issuer: must have no query"),
        ("issuer = \"http://127.0.0.1:9\"", "", "issuer: is missing"),
        ("account = \"default\"", "", "account: give either account or account_claim"),
        ("client.key", "wide.key", "can be read by others"),
        ("client_id = \"bailiwick\"\n", "", "client_id: is missing"),
        ("title = \"Example\"", "title = \" \"", "title: stands on a button"),
        ("title = \"Example\"", "algorithm = \"HS256\"", "algorithm: the key is of another kind"),
        ("title = \"Example\"", "discovery_url = \"x\"", "unknown key"),
        ("\"provider\"", "\"none\"", "second_factor"),
        ("\"profile\"", "\"a b\"", "scopes: one scope each"),
    ] {
        assert!(good.contains(from));
        home.write("bad.toml", &format!("{server}{public}{walk}{}", good.replace(from, to)), 0o600);
        home.run(&["serve", "-c", "bad.toml"]).failed(64, &["auth.oidc.sso", told]);
    }
}
