//! Migrations of PostgreSQL in one transaction, without prepared statements and without a session's
//! lock: a pooler may give each transaction to another connection of the server.

use std::pin::Pin;
use std::time::Duration;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row as _};
use tokio::time::Instant;

/// Two starts at once: the second waits for the end of the first's transaction. At the level of
/// isolation that sees what the first has done meanwhile, whatever the default is; the checksums'
/// text is the one that sqlx reads.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL bytea_output = 'hex'; \
                     SELECT pg_advisory_xact_lock(7310023871105134)";

/// A connection whose migrations are one transaction, from the lock to its release.
#[derive(Debug)]
pub(super) struct InOneTransaction<'a>(pub(super) &'a mut PgConnection);

type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, MigrateError>> + Send + 'a>>;

impl InOneTransaction<'_> {
    async fn execute(&mut self, sql: String) -> Result<(), MigrateError> {
        self.0.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }
}

impl Migrate for InOneTransaction<'_> {
    fn create_schema_if_not_exists<'e>(&'e mut self, schema_name: &'e str) -> Step<'e, ()> {
        Box::pin(self.execute(format!("CREATE SCHEMA IF NOT EXISTS {schema_name}")))
    }

    fn ensure_migrations_table<'e>(&'e mut self, table_name: &'e str) -> Step<'e, ()> {
        Box::pin(self.execute(format!(
            "CREATE TABLE IF NOT EXISTS {table_name} (
                version bigint PRIMARY KEY,
                description text NOT NULL,
                installed_on timestamptz NOT NULL DEFAULT now(),
                success boolean NOT NULL,
                checksum bytea NOT NULL,
                execution_time bigint NOT NULL
            )"
        )))
    }

    fn dirty_version<'e>(&'e mut self, table_name: &'e str) -> Step<'e, Option<i64>> {
        let select =
            format!("SELECT version FROM {table_name} WHERE NOT success ORDER BY version LIMIT 1");
        Box::pin(async move {
            let found = self.0.fetch_optional(AssertSqlSafe(select)).await?;
            Ok(found.map(|row| row.try_get(0)).transpose()?)
        })
    }

    fn list_applied_migrations<'e>(
        &'e mut self,
        table_name: &'e str,
    ) -> Step<'e, Vec<AppliedMigration>> {
        let select = format!("SELECT version, checksum FROM {table_name} ORDER BY version");
        Box::pin(async move {
            let mut applied = Vec::new();
            for row in self.0.fetch_all(AssertSqlSafe(select)).await? {
                let checksum: Vec<u8> = row.try_get(1)?;
                applied
                    .push(AppliedMigration { version: row.try_get(0)?, checksum: checksum.into() });
            }
            Ok(applied)
        })
    }

    fn lock(&mut self) -> Step<'_, ()> {
        Box::pin(self.execute(BEGIN.to_owned()))
    }

    fn unlock(&mut self) -> Step<'_, ()> {
        Box::pin(self.execute("COMMIT".to_owned()))
    }

    fn apply<'e>(
        &'e mut self,
        table_name: &'e str,
        migration: &'e Migration,
    ) -> Step<'e, Duration> {
        let applied = format!(
            "INSERT INTO {table_name} (version, description, success, checksum, execution_time)
             VALUES ({}, '{}', true, decode('{}', 'hex'), -1)",
            migration.version,
            migration.description.replace('\'', "''"),
            hex(&migration.checksum),
        );
        Box::pin(async move {
            let begun = Instant::now();
            let version = migration.version;
            let made = self.0.execute(migration.sql.clone()).await;
            made.map_err(|error| MigrateError::ExecuteMigration(error, version))?;
            self.execute(applied).await?;
            Ok(begun.elapsed())
        })
    }

    fn revert<'e>(&'e mut self, _: &'e str, migration: &'e Migration) -> Step<'e, Duration> {
        // No migration of ours has a way back, and nothing asks for one.
        Box::pin(async { Err(MigrateError::VersionMissing(migration.version)) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
