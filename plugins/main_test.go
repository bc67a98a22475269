package plugins_test

import (
	"os"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
