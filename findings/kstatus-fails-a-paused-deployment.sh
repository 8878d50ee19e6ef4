#!/usr/bin/env bash
# Of the same paused Deployment, Flux's library says Failed and Argo CD's says Suspended.
#
# Expected: while a rollout is paused its deadline does not run, so no verdict is taken from a condition that
#           is left from before. https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#failed-deployment
# Seen:     a stalled rollout that is then paused keeps ProgressDeadlineExceeded. kstatus (cli-utils 0.37.2)
#           reads the condition first: Failed. gitops-engine (argo-cd of 14 September 2026) reads spec.paused
#           first: Suspended.
# Matters:  to who moves between the two, or waits with kstatus: pausing a rollout to look at it ends
#           the wait as a failure.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

engine=github.com/argoproj/argo-cd/gitops-engine
version=v0.0.0-20260914071520-c9c369efcc5b
printf 'module show\n\ngo 1.26.1\n\nrequire (\n\t%s %s\n\tsigs.k8s.io/cli-utils v0.37.2\n)\n' "$engine" "$version" >go.mod
# Its versions of Kubernetes, which a dependent does not inherit.
theirs=$(go mod download -json "$engine@$version" | sed -n 's/.*"GoMod": "\(.*\)",*/\1/p')
sed -n '/^replace (/,/^)/p' "$theirs" >>go.mod

cat >show.go <<'GO'
package main

import (
	"fmt"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

const text = `{
  "apiVersion": "apps/v1", "kind": "Deployment",
  "metadata": {"name": "web", "namespace": "shop", "generation": 3},
  "spec": {"replicas": 2, "paused": true, "progressDeadlineSeconds": 600},
  "status": {
    "observedGeneration": 3, "replicas": 3, "updatedReplicas": 1,
    "readyReplicas": 2, "availableReplicas": 2, "unavailableReplicas": 1,
    "conditions": [
      {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
      {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    ]
  }
}`

func main() {
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON([]byte(text)); err != nil {
		panic(err)
	}
	computed, err := status.Compute(&object)
	if err != nil {
		panic(err)
	}
	fmt.Printf("kstatus: %s, %s\n", computed.Status, computed.Message)
	assessed, err := health.GetResourceHealth(&object, nil)
	if err != nil {
		panic(err)
	}
	fmt.Printf("gitops-engine: %s, %s\n", assessed.Status, assessed.Message)
}
GO
go build -mod=mod -o show . 2>go.log || { cat go.log; exit 1; }

cat >expected <<'END'
kstatus: Failed, Progress deadline exceeded
gitops-engine: Suspended, Deployment is paused
END
./show | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with the versions above" >&2; exit 1; }
