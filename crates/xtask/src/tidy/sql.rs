//! SQL: in the store alone, never put together from data, and never without a tenant.

use super::{Finding, Module};
use crate::rust::has_word;

/// Files of the store that may name the driver. All others speak through `Sql`, which binds the tenant.
const DRIVER: &[&str] =
    &["engine/file.rs", "engine/postgres.rs", "error.rs", "migrate.rs", "postgres.rs", "sql.rs", "url.rs"];
/// Files of the store whose statements are about a database and its roles, and touch no tenant's row.
const CATALOGUE: &[&str] = &["engine/postgres.rs", "postgres.rs"];
/// Crates for development, which look beneath the server on purpose or speak about SQL without having any.
const BENEATH: &[&str] = &["xtask", "crash", "bench", "testkit"];

pub(super) fn check(modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for module in modules.iter().filter(|module| !BENEATH.contains(&module.crate_name)) {
        if module.crate_name == "store" {
            findings.extend(without_tenant(module));
            findings.extend(beside_the_seam(module));
        } else {
            findings.extend(out_of_place(module));
        }
        findings.extend(from_data(module));
    }
    findings
}

/// Whether a text is a statement about rows.
fn is_statement(text: &str) -> bool {
    let update = text.find("UPDATE ").is_some_and(|at| text[at..].contains(" SET "));
    update || ["SELECT ", "INSERT INTO ", "DELETE FROM "].iter().any(|word| text.contains(word))
}

fn out_of_place(module: &Module<'_>) -> Vec<Finding> {
    let product = module.source.strings.iter().filter(|(line, _)| !module.source.is_test(*line));
    let statements = product.filter(|(_, text)| is_statement(text));
    statements.map(|(line, _)| Finding::new(module.path, *line, "SQL outside the store")).collect()
}

/// A statement names its tenant as `?1`: in a condition, in the first column that it inserts, or, in the
/// host's file, by saying that it is the host's.
fn names_tenant(text: &str) -> bool {
    text.contains("account = ?1") || text.contains("?1 = 'host'") || inserts_account(text)
}

fn inserts_account(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("INSERT INTO ") else { return false };
    let columns = rest.split_once('(').is_some_and(|(_, columns)| columns.trim_start().starts_with("account,"));
    columns && (rest.contains("VALUES (?1") || rest.contains("SELECT ?1"))
}

fn without_tenant(module: &Module<'_>) -> Vec<Finding> {
    let catalogue = module.path.strip_prefix("crates/store/src/").is_some_and(|file| CATALOGUE.contains(&file));
    let product = module.source.strings.iter().filter(|(line, _)| !catalogue && !module.source.is_test(*line));
    let open = product.filter(|(_, text)| is_statement(text) && !names_tenant(text));
    open.map(|(line, _)| Finding::new(module.path, *line, "a statement that names no tenant")).collect()
}

fn beside_the_seam(module: &Module<'_>) -> Option<Finding> {
    let file = module.path.strip_prefix("crates/store/src/")?;
    if DRIVER.contains(&file) {
        return None;
    }
    let drivers = |code: &str| has_word(code, "rusqlite") || has_word(code, "tokio_postgres");
    let (line, _) = module.product().find(|(_, code)| drivers(code))?;
    Some(Finding::new(module.path, line, "names the driver: statements go through Sql, which binds the tenant"))
}

fn from_data(module: &Module<'_>) -> Option<Finding> {
    let (line, _) = module.source.lines().find(|(_, code)| has_word(code, "AssertSqlSafe"))?;
    Some(Finding::new(module.path, line, "AssertSqlSafe: no statement is put together from data"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::tells;

    const WEB: &str = "crates/web/src/x.rs";
    const STORE: &str = "crates/store/src/x.rs";

    #[test]
    fn sql_outside_the_store_is_found_and_english_is_not() {
        let sql = "const A: &str = \"SELECT 1 FROM x WHERE account = ?1\";\n";
        tells(check, (WEB, sql), (STORE, sql), "outside the store");
        tells(check, (WEB, "let a = \"UPDATE x SET y = 1\";\n"), (WEB, "let a = \"Update it, then set it\";\n"), "SQL");
        tells(check, (WEB, sql), (WEB, "// SELECT a FROM b\n"), "SQL");
    }

    #[test]
    fn statements_without_a_tenant_are_found() {
        for (bad, good) in [
            ("SELECT name FROM user WHERE name = ?2", "SELECT name FROM user WHERE account = ?1 AND name = ?2"),
            ("DELETE FROM space", "DELETE FROM space WHERE account = ?1"),
            ("UPDATE user SET role = ?2", "UPDATE user SET role = ?2 WHERE account = ?1"),
            ("INSERT INTO user (name, account) VALUES (?2, ?1)", "INSERT INTO user (account, name) VALUES (?1, ?2)"),
            ("INSERT INTO user (account, name) VALUES (?2, ?3)", "INSERT INTO u (account, n) SELECT ?1, ?2"),
            ("SELECT name FROM account", "SELECT name FROM account WHERE ?1 = 'host'"),
        ] {
            let wrap = |sql: &str| format!("const A: &str = \"{sql}\";\n");
            tells(check, (STORE, &wrap(bad)), (STORE, &wrap(good)), "no tenant");
        }
    }

    #[test]
    fn the_driver_beside_the_seam_is_found() {
        let text = "use rusqlite::Connection;\n";
        tells(check, (STORE, text), ("crates/store/src/engine/file.rs", text), "driver");
        tells(check, (STORE, text), ("crates/store/tests/it/x.rs", text), "driver");
    }

    #[test]
    fn the_way_round_static_statements_is_found() {
        tells(check, (STORE, "query(AssertSqlSafe(text));\n"), (STORE, "// AssertSqlSafe\n"), "AssertSqlSafe");
    }
}
