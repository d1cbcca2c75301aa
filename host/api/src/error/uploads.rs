//! Problems of uploaded components.

use axum::http::StatusCode;

use super::Problem;
use carillon_policy::LoadError;

/// When an upload may be worth another try, in seconds.
const UPLOAD_AGAIN: u32 = 10;

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        let detail = error.to_string();
        match error {
            LoadError::TooLarge { .. } => Self::too_large(detail),
            LoadError::Busy(_) | LoadError::Source(_) => {
                Self { retry_after: Some(UPLOAD_AGAIN), ..Self::unavailable(detail) }
            }
            LoadError::OverBudget { retry_after, .. } => {
                let (status, title) = (StatusCode::TOO_MANY_REQUESTS, "Compilation budget used up");
                let problem = Self::new(status, "compile-budget", title, detail);
                let seconds = retry_after.as_millis().div_ceil(1_000);
                Self { retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX)), ..problem }
                    .of_bound("limits.tenant.compile_seconds")
            }
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not-a-plugin", "Invalid plugin", detail),
        }
    }
}
