package lab
import "context"
type Matrix struct{}
type MatrixReport struct{}
func (m *Matrix) Run(ctx context.Context) (*MatrixReport, error) { return nil, nil }
func (r *MatrixReport) Failed() bool { return false }
func (r *MatrixReport) Text() string { return "" }
