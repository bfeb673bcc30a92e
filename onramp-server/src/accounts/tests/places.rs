//! Where the stores of the tests are: each test has one of its own, which is empty.

use std::io::Write as _;
use std::sync::Arc;

use pmesh::onramp::accounts::{AccountStore, MemoryStore};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::accounts::SqlStore;

pub(super) type Store = Arc<dyn AccountStore>;

pub(super) async fn memory<F: Future<Output = ()>>(test: fn(Store) -> F) {
    test(Arc::new(MemoryStore::new())).await;
}

pub(super) async fn sqlite<F: Future<Output = ()>>(test: fn(Store) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("accounts.db").display());
    test(Arc::new(SqlStore::open(&url).await.unwrap())).await;
}

pub(super) async fn postgres<F: Future<Output = ()>>(test: fn(Store) -> F) {
    let Some(schema) = Schema::make().await else { return };
    test(Arc::new(SqlStore::open(&schema.url).await.unwrap())).await;
    schema.remove().await;
}

/// A part of the PostgreSQL database of the tests.
pub(super) struct Schema {
    server: String,
    name: String,
    pub(super) url: String,
}

impl Schema {
    /// None, and a word about it past the harness, which would keep it to itself, if there is no server to test with.
    pub(super) async fn make() -> Option<Self> {
        let Ok(server) = std::env::var("PMESH_TEST_POSTGRES") else {
            let told = "SKIPPED: a test with PostgreSQL; see scripts/with-postgres.sh";
            writeln!(std::io::stderr(), "{told}").unwrap();
            return None;
        };
        let name = format!("test_{}_{:?}", std::process::id(), std::thread::current().id());
        let name = name.to_lowercase().replace(['(', ')'], "_");
        let mark = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{mark}options[search_path]={name}");
        let schema = Self { server, name, url };
        schema.run("CREATE SCHEMA").await;
        Some(schema)
    }

    pub(super) async fn remove(self) {
        self.run("DROP SCHEMA IF EXISTS").await;
    }

    async fn run(&self, what: &str) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let end = if what.starts_with("DROP") { "CASCADE" } else { "" };
        let statement = format!("{what} {} {end}", self.name);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
}
