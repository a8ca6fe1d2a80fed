//! A look into what connections outward need, without making one and without the state directory.

use super::{issuers, upstreams};
use crate::config::checked::Checked;
use crate::config::faults::{Declared, Faults};
use crate::outbound::OutboundClient;

/// What would keep a judged configuration from serving: certificates and authorities toward upstreams and issuers that
/// cannot be used.
#[must_use]
pub fn examine(checked: &Checked) -> Faults {
    let mut faults = Faults::default();
    let mut note = |at: &Declared, code: &'static str, message: String| faults.push(at.fault(code, message));
    upstreams::examine(checked, &mut note);
    for issuer in &checked.issuers {
        let client = issuers::outbound(issuer)
            .and_then(|settings| OutboundClient::new(&settings).map_err(|error| error.to_string()));
        if let Err(error) = client {
            note(issuers::fault_place(issuer), "issuer", format!("issuer `{}`: {error}", issuer.name));
        }
    }
    faults
}
