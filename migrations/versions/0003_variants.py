"""variants: added later, rebuilt, pinned; results that need not be made twice; who works"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f('ck_runs_purpose'), 'runs', type_='check')
    op.create_check_constraint(op.f('ck_runs_purpose'), 'runs', "purpose IN ('intake', 'rescan', 'variant', 'rebuild')")
    op.add_column('runs', sa.Column('request', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False, comment='what was asked for, frozen at submit'))
    op.add_column('steps', sa.Column('optional', sa.Boolean(), server_default='false', nullable=False))
    op.add_column('versions', sa.Column('pins', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False, comment='device -> the variant to prefer there'))
    op.create_table('workers',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('queues', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('devices', postgresql.JSONB(astext_type=sa.Text()), server_default='[]', nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_workers'))
    )
    op.create_table('results',
    sa.Column('owner_id', sa.Uuid(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False, comment='hex SHA-256 of all that the result depends on'),
    sa.Column('run_id', sa.Uuid(), nullable=False),
    sa.Column('stage', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_results_owner_id_users'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_results_run_id_runs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('owner_id', 'key', name=op.f('pk_results'))
    )
    op.create_index(op.f('ix_results_run_id'), 'results', ['run_id'], unique=False)


def downgrade() -> None:
    op.execute("DELETE FROM runs WHERE purpose IN ('variant', 'rebuild')")
    op.drop_table('results')
    op.drop_table('workers')
    op.drop_column('versions', 'pins')
    op.drop_column('steps', 'optional')
    op.drop_column('runs', 'request')
    op.drop_constraint(op.f('ck_runs_purpose'), 'runs', type_='check')
    op.create_check_constraint(op.f('ck_runs_purpose'), 'runs', "purpose IN ('intake', 'rescan')")
