use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, ErrorKind, Fault, Handover, Holding, Home, HomeMove, Moving, RegionStatus};
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
    let pb::Region { name, served_by, epoch, since_ms, newest_write, jurisdiction } = region;
    RegionStatus { region: name, jurisdiction, served_by, epoch, since_ms, newest_write: hlc(newest_write) }
}

fn home_from_pb(home: pb::GetHomeResponse) -> Home {
    let pb::GetHomeResponse { region, served_by, epoch, moving_to, since_ms, jurisdiction } = home;
    let moving = (!moving_to.is_empty()).then_some(Moving { to: moving_to, since_ms });
    Home { region, jurisdiction, served_by, epoch, moving }
}

fn move_from_pb(one: pb::Move) -> Result<HomeMove, Fault> {
    let pb::Move { user_id, user_name, from, to, epoch, since_ms } = one;
    Ok(HomeMove { user: user_id.parse()?, name: user_name, from, to, epoch, since_ms })
}

#[async_trait]
impl Regions for RegionsClient {
    async fn list_regions(&self, call: &Call) -> Result<Vec<RegionStatus>, Fault> {
        let answer = ask!(self, call, list_regions, pb::ListRegionsRequest {});
        Ok(answer.regions.into_iter().map(region_from_pb).collect())
    }

    async fn get_home(&self, call: &Call, user: &str) -> Result<Home, Fault> {
        let answer = ask!(self, call, get_home, pb::GetHomeRequest { user_name: user.to_owned() });
        Ok(home_from_pb(answer))
    }

    async fn fail_over(&self, call: &Call, region: &str, to: &str) -> Result<RegionStatus, Fault> {
        let message = pb::FailOverRequest { region: region.to_owned(), to: to.to_owned() };
        tell!(self, call, fail_over, message).region.map(region_from_pb).ok_or_else(|| missing("region"))
    }

    async fn fail_back(&self, call: &Call, region: &str) -> Result<RegionStatus, Fault> {
        let message = pb::FailBackRequest { region: region.to_owned() };
        tell!(self, call, fail_back, message).region.map(region_from_pb).ok_or_else(|| missing("region"))
    }

    async fn move_home(&self, call: &Call, user: &str, to: &str) -> Result<Home, Fault> {
        let message = pb::MoveHomeRequest { user_name: user.to_owned(), to: to.to_owned() };
        tell!(self, call, move_home, message).home.map(home_from_pb).ok_or_else(|| missing("home"))
    }

    async fn abort_move(&self, call: &Call, user: &str) -> Result<Home, Fault> {
        let message = pb::AbortMoveRequest { user_name: user.to_owned() };
        tell!(self, call, abort_move, message).home.map(home_from_pb).ok_or_else(|| missing("home"))
    }

    async fn list_moves(&self, call: &Call) -> Result<Vec<HomeMove>, Fault> {
        let answer = ask!(self, call, list_moves, pb::ListMovesRequest {});
        answer.moves.into_iter().map(move_from_pb).collect()
    }

    async fn release_user(&self, call: &Call, user: &str, epoch: u64) -> Result<Handover, Fault> {
        let message = pb::ReleaseUserRequest { user_name: user.to_owned(), epoch };
        let pb::ReleaseUserResponse { fence, rows, digest, keys_since_ms } = ask!(self, call, release_user, message);
        let unfit = |digest: Vec<u8>| {
            Fault::new(
                ErrorKind::Internal,
                format!("the server's answer has a digest of {} bytes, not 32", digest.len()),
            )
        };
        let digest = digest.try_into().map_err(unfit)?;
        Ok(Handover { fence: hlc(fence), holding: Holding { rows, digest }, keys_since_ms })
    }
}
