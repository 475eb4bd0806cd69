use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Fault, Home, RegionStatus};
use echotune_proto::users::v1::{self as pb, regions_service_client::RegionsServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::Regions;
use crate::convert::{ask, hlc, missing, tell};

/// The regions of a platform elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct RegionsClient(RegionsServiceClient<InterceptedService<Channel, Credentials>>);

impl RegionsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self(RegionsServiceClient::with_interceptor(channel, credentials))
    }
}

fn region_from_pb(region: pb::Region) -> RegionStatus {
    let pb::Region { name, served_by, epoch, since_ms, newest_write } = region;
    RegionStatus { region: name, served_by, epoch, since_ms, newest_write: hlc(newest_write) }
}

#[async_trait]
impl Regions for RegionsClient {
    async fn list_regions(&self, call: &Call) -> Result<Vec<RegionStatus>, Fault> {
        let answer = ask!(self, call, list_regions, pb::ListRegionsRequest {});
        Ok(answer.regions.into_iter().map(region_from_pb).collect())
    }

    async fn get_home(&self, call: &Call, user: &str) -> Result<Home, Fault> {
        let answer = ask!(self, call, get_home, pb::GetHomeRequest { user_name: user.to_owned() });
        Ok(Home { region: answer.region, served_by: answer.served_by })
    }

    async fn fail_over(&self, call: &Call, region: &str, to: &str) -> Result<RegionStatus, Fault> {
        let message = pb::FailOverRequest { region: region.to_owned(), to: to.to_owned() };
        tell!(self, call, fail_over, message).region.map(region_from_pb).ok_or_else(|| missing("region"))
    }

    async fn fail_back(&self, call: &Call, region: &str) -> Result<RegionStatus, Fault> {
        let message = pb::FailBackRequest { region: region.to_owned() };
        tell!(self, call, fail_back, message).region.map(region_from_pb).ok_or_else(|| missing("region"))
    }
}
