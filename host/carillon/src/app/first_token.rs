//! Access of the first operator: the configured token, or a new one that is handed over outside of the log.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::private::write_private;
use carillon_catalog::{Catalog, DEFAULT_TENANT, NewToken};
use carillon_config::Config;
use carillon_core::audit::Origin;

/// Place where the first operator's token is handed over. It is never the log, which is kept and shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstToken {
    /// The terminal on which the server was started.
    Terminal,
    /// A private file next to the database.
    File,
}

impl FirstToken {
    /// Returns the terminal if a person has started the process on one, otherwise the file.
    pub(super) fn of_process() -> Self {
        if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() { Self::Terminal } else { Self::File }
    }

    fn hand_over(self, text: &str, file: &Path) -> anyhow::Result<()> {
        match self {
            Self::Terminal => {
                let told =
                    format!("\nThe first operator's token, which is shown once: store it safely.\n\n    {text}\n\n");
                std::io::stderr().write_all(told.as_bytes()).context("the terminal cannot be written")
            }
            Self::File => {
                write_private(file, text).with_context(|| {
                    let file = file.display();
                    format!(
                        "the operator's token cannot be written to `{file}`: set auth.admin_token, or make the directory writable"
                    )
                })?;
                tracing::warn!(file = %file.display(), "wrote the first operator's token to a file; store the token safely and delete the file");
                Ok(())
            }
        }
    }
}

/// Ensures that an operator has access: with the configured token, or at the first start with a new one.
pub(super) async fn operator_token(
    config: &Config,
    catalog: &Catalog,
    first: FirstToken,
    file: &Path,
) -> anyhow::Result<()> {
    if !config.auth.enabled {
        tracing::warn!("authentication is disabled; every client that reaches the port is an operator");
        return Ok(());
    }
    let count = catalog.unauthenticated_tokens();
    if count > 0 {
        tracing::warn!(count, "tokens are not valid because they were made while authentication was disabled");
    }
    let tenant = catalog.tenant(DEFAULT_TENANT).context("the default tenant does not exist")?;
    if let Some(text) = &config.auth.admin_token {
        catalog.configure_token(tenant.id, text, &Origin::configuration()).await.context("auth.admin_token")?;
        return Ok(());
    }
    if catalog.withdraw_configured_token(tenant.id, &Origin::configuration()).await? {
        tracing::warn!("revoked the operator token of the configuration, because auth.admin_token is no longer set");
    }
    if catalog.has_operator() {
        return Ok(());
    }
    // In this order, a server that stops in between leaves a token that is not valid, and makes another one at its next start.
    let text = Zeroizing::new(catalog.new_token_text());
    first.hand_over(&text, file)?;
    catalog.add_token(tenant.id, NewToken::first_operator(), &text, &Origin::system()).await?;
    Ok(())
}
